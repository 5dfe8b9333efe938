/**
 * Parses JSON without losing digits. Numeric, bigint and jsonb columns store the digits that a client sent, but
 * JavaScript rounds a bigint beyond 2^53, and writes `1.50` as `1.5`. So a number that JavaScript could change is kept
 * as `{rawJSON}` (JSON.rawJSON).
 */

// Node has these functions, but TypeScript declares them only in the library es2026.
interface ExactJson {
  rawJSON(text: string): { readonly rawJSON: string };
  isRawJSON(value: unknown): value is { readonly rawJSON: string };
}
export const exactJson = JSON as unknown as ExactJson;

/** A reviver for JSON.parse. It keeps the digits of each number that JavaScript could change. */
export function keepDigits(_key: string, value: unknown, context?: { source?: string }): unknown {
  if (typeof value !== 'number' || context?.source === undefined) return value;
  const exact = String(value) === context.source && (Number.isSafeInteger(value) || !Number.isInteger(value));
  return exact ? value : exactJson.rawJSON(context.source);
}

/**
 * JSON.parse with keepDigits. The reviver makes parsing ten times slower, so a text that certainly does not
 * need the reviver is parsed without it.
 */
export function parseExactJson(text: string): unknown {
  return hasOnlySafeNumbers(text) ? JSON.parse(text) : JSON.parse(text, keepDigits);
}

/**
 * Whether all numbers in the text are safe whole numbers. Digits within strings count as numbers too. So the result may
 * be false although it could be true, and the text is then parsed more slowly than necessary.
 */
function hasOnlySafeNumbers(text: string): boolean {
  let digits = 0;
  for (let i = 0; i < text.length; i++) {
    const code = text.charCodeAt(i);
    if (code >= 0x30 && code <= 0x39) {
      // JavaScript writes -0 as `0`
      if (++digits > 15 || (code === 0x30 && text.charCodeAt(i - 1) === 0x2d)) return false;
    } else {
      // `.`, `e` or `E` after a digit: the number is not written as a whole number
      if (digits > 0 && (code === 0x2e || code === 0x65 || code === 0x45)) return false;
      digits = 0;
    }
  }
  return true;
}
