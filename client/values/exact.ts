/**
 * Parses JSON of the server and keeps keys exact. JavaScript rounds numbers: two rows whose numeric keys differ in the
 * 20th digit would have the same key. So integers beyond 2^53 become bigints. Other numbers stay rounded. Their exact
 * values are kept beside the parsed object, and only keys use the exact values. What must stay true: equal numbers have
 * equal digits (1.0 and 1.00 are the same key in Postgres); a frame without such numbers costs nothing.
 */

/** matches every number that may be rounded: a number of 16 characters or more outside of quotes */
const mayRound = /[:,[-]\s*\d[\d.]{15}/;

/**
 * The exact values of rounded numbers, by the object or array that holds the number, and by the name of the member. The
 * exact value of a whole number is a bigint, and of a number with a fraction the string of its digits.
 */
const rounded = new WeakMap<object, Map<string, string | bigint>>();
/** the number of significant digits up to which a JavaScript number keeps every decimal number exact */
const exactDigits = 15;

export function parseExact(text: string): unknown {
  return mayRound.test(text) ? JSON.parse(text, keep) : JSON.parse(text);
}

/** The exact value of a member, even if the member itself is rounded. */
export function exactMember(holder: object, name: string): unknown {
  return rounded.get(holder)?.get(name) ?? (holder as Record<string, unknown>)[name];
}

/** Copies a value, and replaces rounded numbers by their exact values. */
export function exactValue(value: unknown): unknown {
  if (value === null || typeof value !== 'object') return value;
  if (Array.isArray(value)) return value.map((_, i) => exactValue(exactMember(value, String(i))));
  return Object.fromEntries(Object.keys(value).map((name) => [name, exactValue(exactMember(value, name))]));
}

function keep(this: object, name: string, value: unknown, context?: { source?: string }): unknown {
  const source = context?.source;
  if (typeof value !== 'number' || source === undefined) return value;
  if (/^-?\d+$/.test(source)) return Number.isSafeInteger(value) ? value : BigInt(source);
  const exact = exactNumber(source, value);
  if (typeof exact !== 'number') {
    const members = rounded.get(this) ?? new Map<string, string | bigint>();
    rounded.set(this, members.set(name, exact));
  }
  return value;
}

/** Returns the exact value of a number. Equal numbers give equal results: 1.0 and 1.00 both give 1. */
function exactNumber(source: string, value: number): number | string | bigint {
  const [, sign = '', whole, fraction] = /^(-?)(\d+)\.(\d+)$/.exec(source) ?? [];
  // A number with an exponent is a float. Postgres writes a float so that parsing gives the same float again.
  if (whole === undefined || fraction === undefined) return value;
  const places = fraction.replace(/0+$/, '');
  if (places === '') return Number.isSafeInteger(value) ? value : BigInt(sign + whole);
  const significant = (whole + places).replace(/^0+/, '');
  const text = `${sign}${whole}.${places}`;
  return significant.length <= exactDigits || text === String(value) ? value : text;
}
