/**
 * JSON.parse without losing digits. JavaScript rounds a bigint beyond 2^53 and respells `1.50`;
 * numeric, bigint and jsonb columns store the digits that were sent. A number that JavaScript could
 * change is kept as `{rawJSON}` (JSON.rawJSON).
 */

// In lib.d.ts from es2026 on; Node has them.
interface ExactJson {
  rawJSON(text: string): { readonly rawJSON: string };
  isRawJSON(value: unknown): value is { readonly rawJSON: string };
}
export const exactJson = JSON as unknown as ExactJson;

/** A reviver for JSON.parse: keeps the digits of each number that JavaScript would or might change. */
export function keepDigits(_key: string, value: unknown, context?: { source?: string }): unknown {
  if (typeof value !== 'number' || context?.source === undefined) return value;
  const exact = String(value) === context.source && (Number.isSafeInteger(value) || !Number.isInteger(value));
  return exact ? value : exactJson.rawJSON(context.source);
}

/**
 * JSON.parse with keepDigits. The reviver makes parsing ten times slower, so texts that cannot need
 * it are parsed without.
 */
export function parseExactJson(text: string): unknown {
  return hasOnlySafeNumbers(text) ? JSON.parse(text) : JSON.parse(text, keepDigits);
}

/**
 * Whether all digits belong to safe whole numbers. Digits within strings count as well: a false no
 * only costs time.
 */
function hasOnlySafeNumbers(text: string): boolean {
  let digits = 0;
  for (let i = 0; i < text.length; i++) {
    const code = text.charCodeAt(i);
    if (code >= 0x30 && code <= 0x39) {
      // -0 is a number of its own in JavaScript
      if (++digits > 15 || (code === 0x30 && text.charCodeAt(i - 1) === 0x2d)) return false;
    } else {
      // . e E
      if (digits > 0 && (code === 0x2e || code === 0x65 || code === 0x45)) return false;
      digits = 0;
    }
  }
  return true;
}
