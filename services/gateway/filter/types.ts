/**
 * The types whose values filters can compare. A codec defines for its type how a filter writes a value, how
 * an image holds it, how a parameter passes it to Postgres, and how values are ordered. Invariant: for
 * every value that a row can hold, JavaScript and Postgres compare with the same result. Types for which
 * this is not certain have no codec, and parseFilter refuses their columns.
 */

import { exactJson } from '#shared/exact-json.ts';
import type { Column } from '../catalog/catalog.ts';
import { formatMoment, type Moment, parseMoment, type TimeType } from './moment.ts';

/**
 * The number ±0.<digits> × 10^exponent. The digits neither begin nor end with a zero. The infinities and
 * NaN have an infinite exponent.
 */
interface Decimal {
  readonly sign: -1 | 0 | 1;
  readonly exponent: number;
  readonly digits: string;
}

/**
 * A value of a row or of a filter, in the form in which values are compared. All values of one column have
 * the same form, except the infinities of a timestamp.
 */
export type Comparable = boolean | number | bigint | string | Decimal;

export interface Codec {
  /** completes "must be …" */
  readonly expected: string;
  /** the type of pg_catalog that a parameter is cast to */
  readonly cast: string;
  /** whether gt, gte, lt and lte are allowed */
  readonly ordered: boolean;
  /** reads a value of a filter; undefined if the value is not of this type */
  readonly parse: (value: unknown) => Comparable | undefined;
  /**
   * reads a value of an image, which is never null here; undefined if the value is not of this type.
   * `source` returns the text of a JSON number.
   */
  readonly read: (value: unknown, source: () => string) => Comparable | undefined;
  /** the value as the text that Postgres reads */
  readonly text: (value: Comparable) => string;
  /** SQL that is compared instead of the column itself: `equalSql` for equality, `orderSql` for order */
  readonly equalSql?: (column: string) => string;
  readonly orderSql?: (column: string) => string;
  /**
   * SQL for a value of the column, if the column is selected in a sub-select that another column is compared with.
   * Postgres refuses to compare columns with different collations, such as "C" and "en-x-icu". This SQL removes the
   * collation of the value. Then Postgres uses the collation of the other column, whose index stays usable.
   */
  readonly setSql?: (column: string) => string;
}

/**
 * The digits of a number in a filter. If the parser kept the digits (keepDigits), these are the digits that
 * the client wrote. Otherwise these are the digits that JavaScript writes. Undefined if the value is not a
 * number, or may have lost digits.
 */
function digitsOf(value: unknown): string | undefined {
  if (exactJson.isRawJSON(value)) return value.rawJSON;
  // a whole number this large may have been rounded when it was parsed
  if (typeof value !== 'number' || (Number.isInteger(value) && !Number.isSafeInteger(value))) return undefined;
  return String(value);
}

function whole(bits: bigint, cast: string): Codec {
  const [min, max] = [-(2n ** (bits - 1n)), 2n ** (bits - 1n) - 1n];
  const [least, most] = [Number(min), Number(max)];
  const big = bits === 64n;
  return {
    expected: `a whole number between ${min} and ${max}${big ? ', as a string beyond 2^53' : ''}`,
    cast,
    ordered: true,
    parse(value) {
      if (!big && typeof value === 'number' && Number.isInteger(value) && value >= least && value <= most)
        return value + 0;
      const digits = big && typeof value === 'string' ? value : digitsOf(value);
      if (digits === undefined) return undefined;
      let number: bigint;
      if (/^-?\d{1,19}$/.test(digits)) number = BigInt(digits);
      // 1.0 and 1e3 are whole numbers too
      else if (typeof value !== 'string' && Number.isSafeInteger(Number(digits))) number = BigInt(Number(digits));
      else return undefined;
      if (number < min || number > max) return undefined;
      return big ? number : Number(number);
    },
    read(value, source) {
      if (typeof value !== 'number') return undefined;
      if (!big) return value;
      if (Number.isSafeInteger(value)) return BigInt(value);
      return /^-?\d+$/.test(source()) ? BigInt(source()) : undefined;
    },
    text: indexKey,
  };
}

/** to_json writes these numbers as strings */
const isSpecial = (value: unknown): boolean => value === 'NaN' || value === 'Infinity' || value === '-Infinity';

const float: Codec = {
  expected: 'a number that fits 64 bits',
  cast: 'float8',
  ordered: true,
  parse(value) {
    const number = exactJson.isRawJSON(value) ? Number(value.rawJSON) : value;
    return typeof number === 'number' && Number.isFinite(number) ? number + 0 : undefined;
  },
  read: (value) => (typeof value === 'number' || isSpecial(value) ? Number(value) : undefined),
  text: indexKey,
};

// A real is compared as the decimal number that Postgres prints for it, so that 0.1 equals 0.1. Rounding
// the filter's number to 32 bits would not do: JavaScript rounds to 64 bits first, and can arrive at
// another number than Postgres.
const real: Codec = {
  ...float,
  equalSql: (column) => `${column}::pg_catalog.text::pg_catalog.float8`,
  orderSql: (column) => `${column}::pg_catalog.text::pg_catalog.float8`,
};

const maxDecimalLength = 1000;
const maxExponent = 1000;

function parseDecimal(text: string): Decimal | undefined {
  const match = /^([+-]?)(\d+)(?:\.(\d+))?(?:e([+-]?\d{1,4}))?$/i.exec(text);
  if (!match) return undefined;
  const [, minus, integer, fraction = '', e = '0'] = match;
  const all = integer! + fraction;
  // these are loops because a regular expression for zeros at the end takes quadratic time if a long run of
  // zeros is elsewhere in the text
  let start = 0;
  while (all[start] === '0') start++;
  let end = all.length;
  while (end > start && all[end - 1] === '0') end--;
  if (start === end) return { sign: 0, exponent: 0, digits: '' };
  return { sign: minus === '-' ? -1 : 1, exponent: integer!.length - start + Number(e), digits: all.slice(start, end) };
}

const specialDecimals: Readonly<Record<string, Decimal>> = {
  NaN: { sign: 1, exponent: Infinity, digits: 'NaN' }, // greater than Infinity, as in Postgres
  Infinity: { sign: 1, exponent: Infinity, digits: '' },
  '-Infinity': { sign: -1, exponent: Infinity, digits: '' },
};

const numeric: Codec = {
  expected: `a number, or a decimal number as a string, of at most ${maxDecimalLength} digits`,
  cast: 'numeric',
  ordered: true,
  parse(value) {
    const digits = typeof value === 'string' ? value : digitsOf(value);
    if (digits === undefined || digits.length > maxDecimalLength || digits.startsWith('+')) return undefined;
    const decimal = parseDecimal(digits);
    return decimal !== undefined && Math.abs(decimal.exponent) <= maxExponent ? decimal : undefined;
  },
  read(value, source) {
    if (typeof value === 'number') return parseDecimal(source());
    return isSpecial(value) ? specialDecimals[value as string] : undefined;
  },
  text(value) {
    const { sign, exponent, digits } = value as Decimal;
    return sign === 0 ? '0' : `${sign < 0 ? '-' : ''}0.${digits}e${exponent}`;
  },
};

const maxTextLength = 10_000;
const isText = (value: unknown): value is string =>
  typeof value === 'string' && value.length <= maxTextLength && !value.includes('\0') && value.isWellFormed();

const text: Codec = {
  expected: `text of at most ${maxTextLength} characters, without \\u0000 and halves of surrogate pairs`,
  cast: 'text',
  ordered: true,
  parse: (value) => (isText(value) ? value : undefined),
  read: (value) => (typeof value === 'string' ? value : undefined),
  text: indexKey,
  orderSql: (column) => `${column} collate pg_catalog."C"`,
  setSql: (column) => `pg_catalog.textin(pg_catalog.textout(${column}))`,
};

/** Removes blanks at the end: Postgres ignores them when it compares a char(n), but renders them in the image. */
function withoutBlanks(value: string): string {
  let end = value.length;
  while (value[end - 1] === ' ') end--;
  return value.slice(0, end);
}

const padded: Codec = {
  ...text,
  cast: 'bpchar',
  parse: (value) => (isText(value) ? withoutBlanks(value) : undefined),
  read: (value) => (typeof value === 'string' ? withoutBlanks(value) : undefined),
  setSql: (column) => `pg_catalog.bpcharin(pg_catalog.bpcharout(${column}), 0, -1)`,
};

// Labels of an enum are compared as text, so a label that the enum lacks equals no value. If they were
// compared as values of the enum, such a label would be an error.
const labelText = (column: string) => `${column}::pg_catalog.text`;
const label: Codec = { ...text, ordered: false, equalSql: labelText, setSql: labelText };

const boolean: Codec = {
  expected: 'true or false',
  cast: 'bool',
  ordered: false,
  parse: (value) => (typeof value === 'boolean' ? value : undefined),
  read: (value) => (typeof value === 'boolean' ? value : undefined),
  text: indexKey,
};

const uuid: Codec = {
  expected: 'a UUID',
  cast: 'uuid',
  ordered: false,
  parse: (value) =>
    typeof value === 'string' && /^[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}$/i.test(value)
      ? value.toLowerCase()
      : undefined,
  read: (value) => (typeof value === 'string' ? value : undefined),
  text: indexKey,
};

function time(cast: TimeType, expected: string): Codec {
  return {
    expected,
    cast,
    ordered: true,
    parse: (value) => (typeof value === 'string' && value.length < 50 ? parseMoment(cast, value) : undefined),
    read: (value) => (typeof value === 'string' ? parseMoment(cast, value) : undefined),
    text: (value) => formatMoment(cast, value as Moment),
  };
}

/**
 * The codecs by the name of the type, as format_type prints the name without a length. A user's type never has
 * one of these names, because format_type also prints the schema of a user's type.
 */
const codecs = new Map<string, Codec>([
  ['boolean', boolean],
  ['smallint', whole(16n, 'int2')],
  ['integer', whole(32n, 'int4')],
  ['bigint', whole(64n, 'int8')],
  ['real', real],
  ['double precision', float],
  ['numeric', numeric],
  ['text', text],
  ['character varying', text],
  ['character', padded],
  ['bpchar', padded],
  ['uuid', uuid],
  ['date', time('date', 'a date, like 2026-01-31')],
  ['timestamp without time zone', time('timestamp', 'a date and time without offset, like 2026-01-31T12:00:00.5')],
  ['timestamp with time zone', time('timestamptz', 'a date and time with its offset, like 2026-01-31T12:00:00.5Z')],
]);

/** Undefined if filters cannot compare the column. */
export function codecOf(column: Column): Codec | undefined {
  if (column.enum) return label;
  return column.nondeterministic ? undefined : codecs.get(column.type.replace(/\(\d+(,-?\d+)?\)/, ''));
}

/**
 * Compares two values of one column in Postgres' order: returns a number less than, equal to or greater
 * than 0.
 */
export function compare(a: Comparable, b: Comparable): number {
  if (typeof a === 'string') return compareText(a, b as string);
  if (typeof a === 'object') return compareDecimals(a, b as Decimal);
  if (a === b) return 0;
  if (a < b) return -1;
  if (a > b) return 1;
  return Number(Number.isNaN(a)) - Number(Number.isNaN(b)); // NaN is the greatest value, and equal to itself
}

/**
 * Compares by code point, which is the order of UTF-8 bytes. A comparison of UTF-16 units would put U+10000
 * and above before U+E000.
 */
function compareText(a: string, b: string): number {
  const length = Math.min(a.length, b.length);
  for (let index = 0; index < length; index++) {
    const [left, right] = [a.charCodeAt(index), b.charCodeAt(index)];
    if (left !== right) return rank(left) - rank(right);
  }
  return a.length - b.length;
}

const rank = (unit: number): number => (unit >= 0xd800 && unit < 0xe000 ? unit + 0x10000 : unit);

function compareDecimals(a: Decimal, b: Decimal): number {
  if (a.sign !== b.sign) return a.sign - b.sign;
  if (a.exponent !== b.exponent) return a.exponent < b.exponent ? -a.sign : a.sign;
  if (a.digits === b.digits) return 0;
  return a.digits < b.digits ? -a.sign : a.sign;
}

/** A text for an index: two values of one column have the same text if and only if Postgres finds them equal. */
export function indexKey(value: Comparable): string {
  return typeof value === 'object' ? `${value.sign < 0 ? '-' : ''}${value.digits}e${value.exponent}` : String(value);
}
