/**
 * JSON of the server with exact keys. JavaScript rounds numbers: two rows whose numeric keys differ
 * in the 20th digit would have the same key. So integers beyond 2^53 become bigints. Of other
 * rounded numbers the value stays rounded, and the exact digits are kept beside it, for keys only.
 * What must stay true: equal numbers have equal digits (1.0 and 1.00 are one key in Postgres); a
 * frame without such numbers costs nothing.
 */

/** matches every number that may be rounded: 16 characters or more, not in quotes */
const mayRound = /[:,[-]\s*\d[\d.]{15}/;

/**
 * The exact values of rounded numbers, by the object or array that holds the number, and the name
 * of the member: a bigint, or with a fraction a string of digits.
 */
const rounded = new WeakMap<object, Map<string, string | bigint>>();
/** a decimal of so many significant digits survives as a JavaScript number */
const exactDigits = 15;

export function parseExact(text: string): unknown {
  return mayRound.test(text) ? JSON.parse(text, keep) : JSON.parse(text);
}

/** The exact value of a member. */
export function exactMember(holder: object, name: string): unknown {
  return rounded.get(holder)?.get(name) ?? (holder as Record<string, unknown>)[name];
}

/** A copy with exact values only. */
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

/** Equal for equal numbers: 1.0 and 1.00 are both 1. */
function exactNumber(source: string, value: number): number | string | bigint {
  const [, sign = '', whole, fraction] = /^(-?)(\d+)\.(\d+)$/.exec(source) ?? [];
  // an exponent means a float, and Postgres writes floats so that they parse to the same value
  if (whole === undefined || fraction === undefined) return value;
  const places = fraction.replace(/0+$/, '');
  if (places === '') return Number.isSafeInteger(value) ? value : BigInt(sign + whole);
  const significant = (whole + places).replace(/^0+/, '');
  const text = `${sign}${whole}.${places}`;
  return significant.length <= exactDigits || text === String(value) ? value : text;
}
