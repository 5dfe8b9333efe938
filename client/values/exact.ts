/**
 * JSON of the server, with every key exact. JavaScript rounds numbers: two rows whose numeric keys differ in the 20th digit would have one. So
 * integers beyond 2^53 become bigints, and of other numbers that are rounded the digits are kept beside the value, for keys only. What must
 * stay true: equal numbers have equal digits (1.0 and 1.00 are one key in Postgres), and a frame without such numbers costs nothing.
 */

/** what may be rounded has 16 characters or more; positions and the like stand in quotes */
const mayRound = /[:,[-]\s*\d[\d.]{15}/;

/** by the object or array that holds them, and the member's name: what a rounded number was, a string of digits where it has a fraction */
const rounded = new WeakMap<object, Map<string, string | bigint>>();
/** a decimal of so many digits is what its number is written as again */
const exactDigits = 15;

export function parseExact(text: string): unknown {
  return mayRound.test(text) ? JSON.parse(text, keep) : JSON.parse(text);
}

/** A member as it was before its number was rounded. */
export function exactMember(holder: object, name: string): unknown {
  return rounded.get(holder)?.get(name) ?? (holder as Record<string, unknown>)[name];
}

/** A copy in which no number is rounded. */
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

/** The same for equal numbers: 1.0 and 1.00 are 1, as they are one key in Postgres. */
function exactNumber(source: string, value: number): number | string | bigint {
  const [, sign = '', whole, fraction] = /^(-?)(\d+)\.(\d+)$/.exec(source) ?? [];
  // with an exponent it is a float, of which Postgres writes what gives the same one again
  if (whole === undefined || fraction === undefined) return value;
  const places = fraction.replace(/0+$/, '');
  if (places === '') return Number.isSafeInteger(value) ? value : BigInt(sign + whole);
  const significant = (whole + places).replace(/^0+/, '');
  const text = `${sign}${whole}.${places}`;
  return significant.length <= exactDigits || text === String(value) ? value : text;
}
