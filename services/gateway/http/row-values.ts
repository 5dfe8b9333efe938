/**
 * The values that a REST client may write into a row: zod schemas of request bodies, made from the columns
 * of a table.
 *
 * The schemas turn every value into the text that Postgres reads, or into null, so that nothing depends on
 * how pg renders JavaScript values. A wrong field is refused by name before Postgres sees it. Some values
 * only Postgres can check, such as the label of an enum or a check constraint; postgres-problems.ts
 * translates its errors.
 */
import { z } from 'zod';
import { exactJson } from '#shared/exact-json.ts';
import type { Column, Table } from '../catalog/catalog.ts';
import { sourcesIn } from './json-source.ts';

/**
 * A value for a column; value-sql.ts makes SQL of it. The value of a read-only column is not written: the
 * row must have it already.
 */
export interface Value {
  column: Column;
  /**
   * the text that Postgres reads, or JSON if the type is structured or the column is read-only; null means
   * SQL's null
   */
  text: string | null;
  /** the value as the client sent it, as JSON */
  json: string;
}

export type Values = readonly Value[];

export interface RowSchemas {
  /** POST: requires every column that has no default and may not be null */
  create: z.ZodType<Values>;
  /**
   * PUT: requires the same columns except those of the key, which the URL names. Read-only columns may be
   * sent.
   */
  replace: z.ZodType<Values>;
  /** PATCH: requires at least one column. Read-only columns may be sent. */
  patch: z.ZodType<Values>;
}

export const numberPattern = /^[+-]?(\d+\.?\d*|\.\d+)(e[+-]?\d{1,5})?$/i;
/** Postgres' limit on the dimensions of an array */
const maxArrayDepth = 6;

/**
 * A schema whose result is text. If the type allows other JSON values, `prepare` turns them into text. If
 * the value is not text after `prepare`, the error is `must be ${ofType}`. If `accepts` refuses the text,
 * the error is `must be ${expected}`.
 */
function readable(
  expected: string,
  accepts: (text: string) => boolean,
  prepare: (value: unknown) => unknown = (value) => value,
  ofType = expected,
): z.ZodType<string> {
  const message = `must be ${ofType}`;
  const error = (issue: { input?: unknown }) => {
    if (issue.input === undefined) return 'is required';
    return issue.input === null ? 'must not be null' : message;
  };
  return z.preprocess(
    prepare,
    z
      .string({ error })
      .refine((text) => !text.includes('\0'), { error: 'must not contain the character \\u0000', abort: true })
      .refine((text) => text.isWellFormed(), { error: 'must not contain half of a surrogate pair', abort: true })
      .refine(accepts, { error: `must be ${expected}` }),
  );
}

const isSpecialNumber = (text: string): boolean => /^(NaN|-?Infinity)$/.test(text);

/** Makes a string fail like a value of any other wrong type. Used for types whose JSON is not a string. */
const refuseText = (value: unknown): unknown => (typeof value === 'string' ? {} : value);

const digits = (value: unknown): unknown => {
  if (exactJson.isRawJSON(value)) return value.rawJSON;
  return typeof value === 'number' ? String(value) : value;
};

/**
 * 1.0 and 1e3 are whole numbers. A number beyond 2^53 is accepted only if the parser kept its digits
 * (keepDigits).
 */
const wholeDigits = (value: unknown): unknown => {
  const text = digits(value);
  if (typeof value === 'string' || typeof text !== 'string' || /^-?\d+$/.test(text)) return text;
  return Number.isSafeInteger(Number(text)) ? String(Number(text)) : text;
};

function wholeNumber(bits: bigint, fromText: boolean): z.ZodType<string> {
  const [min, max] = [-(2n ** (bits - 1n)), 2n ** (bits - 1n) - 1n];
  const within = (text: string) => /^-?\d{1,19}$/.test(text) && BigInt(text) >= min && BigInt(text) <= max;
  return readable(`a whole number between ${min} and ${max}`, within, (value) =>
    fromText ? wholeDigits(value) : wholeDigits(refuseText(value)),
  );
}

/**
 * The only strings that this schema accepts are NaN and the infinities: to_json writes only these numbers
 * as strings.
 */
function float(bits: 32 | 64): z.ZodType<string> {
  const fits = (number: number) => Number.isFinite(bits === 32 ? Math.fround(number) : number);
  return readable(
    `a number that fits ${bits} bits`,
    (text) => isSpecialNumber(text) || fits(Number(text)),
    (value) => (typeof value === 'string' && isSpecialNumber(value) ? value : digits(refuseText(value))),
    'a number',
  );
}

const isDay = (text: string): boolean => {
  const match = /^(\d{4,7})-(\d\d)-(\d\d)/.exec(text);
  if (!match) return false;
  const [year, month, day] = [Number(match[1]), Number(match[2]), Number(match[3])];
  const leap = (year % 4 === 0 && year % 100 !== 0) || year % 400 === 0;
  const days = [31, leap || text.endsWith(' BC') ? 29 : 28, 31, 30, 31, 30, 31, 31, 30, 31, 30, 31][month - 1];
  return days !== undefined && day >= 1 && day <= days;
};

const clock = String.raw`([01]\d|2[0-4]):[0-5]\d(:([0-5]\d|60)(\.\d{1,9})?)?`;
const offset = String.raw`(Z|[+-]\d\d(:?\d\d)?(:\d\d)?)`;
const day = String.raw`\d{4,7}-\d\d-\d\d`;

function dated(expected: string, pattern: string): z.ZodType<string> {
  const shape = new RegExp(`^${pattern}( BC)?$`, 'i');
  return readable(expected, (text) => /^-?infinity$/.test(text) || (shape.test(text) && isDay(text)));
}

function text(column: Column): z.ZodType<string> {
  const limit = /^character(?: varying)?\((\d+)\)/.exec(column.type)?.[1];
  if (limit === undefined) return readable('text', () => true);
  // Postgres counts characters; JavaScript's length counts UTF-16 units
  return readable(`text of at most ${limit} characters`, (value) => Array.from(value).length <= Number(limit));
}

const jsonDocument = z.unknown().transform((value, context) => {
  try {
    if (value !== undefined) return JSON.stringify(value);
  } catch {
    // JSON.stringify fails only if the value is nested so deeply that the stack overflows
  }
  context.addIssue({ code: 'custom', message: value === undefined ? 'is required' : 'is nested too deeply' });
  return z.NEVER;
});

/**
 * Turns an array into Postgres' text. Elements may be null. A nested array is a further dimension of the
 * array. But if the elements are JSON, a nested array is an element.
 */
function arrayOf(element: z.ZodType<string>, type: string, ofJson: boolean, depth = 1): z.ZodType<string> {
  const error = (issue: { input?: unknown }) => {
    if (issue.input === undefined) return 'is required';
    return issue.input === null ? 'must not be null' : `must be an array for ${type}`;
  };
  return z.array(z.unknown(), { error }).transform((items, context) => {
    const parts = items.map((item, index) => {
      if (item === null) return 'NULL';
      const nested = Array.isArray(item) && !ofJson && depth < maxArrayDepth;
      const read = (nested ? arrayOf(element, type, ofJson, depth + 1) : element).safeParse(item);
      if (read.success) return nested ? read.data : `"${read.data.replace(/[\\"]/g, String.raw`\$&`)}"`;
      for (const issue of read.error.issues)
        context.addIssue({ code: 'custom', message: issue.message, path: [index, ...issue.path] });
      return '';
    });
    return `{${parts.join(',')}}`;
  });
}

/**
 * Turns a value of a structured type into JSON text for json_to_record. A string is taken as the value in
 * Postgres' own text form, and becomes a JSON string.
 */
const structured = z.unknown().transform((value, context): string => {
  const read = (typeof value === 'string' ? anyText : jsonDocument).safeParse(value);
  if (read.success) return typeof value === 'string' ? JSON.stringify(value) : read.data;
  for (const { message } of read.error.issues) context.addIssue({ code: 'custom', message });
  return z.NEVER;
});
export const anyText = readable('text', () => true);

/** int2vector and oidvector: arrays whose text has blanks instead of braces and commas. */
const vector = z
  .array(z.preprocess(digits, z.string().regex(/^-?\d{1,10}$/, { error: 'must be a whole number' })), {
    error: 'must be an array of whole numbers',
  })
  .transform((items) => items.join(' '));

export function valueSchema(column: Column): z.ZodType<string> {
  if (column.structured) return structured;
  switch (column.base) {
    case 'int2vector':
    case 'oidvector':
      return vector;
    case 'int2':
      return wholeNumber(16n, false);
    case 'int4':
      return wholeNumber(32n, false);
    case 'int8':
      return wholeNumber(64n, true);
    case 'float4':
      return float(32);
    case 'float8':
      return float(64);
    case 'numeric':
      return readable('a number, or a number as text', (t) => isSpecialNumber(t) || numberPattern.test(t), digits);
    case 'bool':
      return readable(
        'true or false',
        () => true,
        (value) => (typeof value === 'boolean' ? String(value) : refuseText(value)),
      );
    case 'text':
    case 'varchar':
    case 'bpchar':
      return text(column);
    case 'uuid':
      return readable('a UUID', (t) => /^[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}$/i.test(t));
    case 'timestamptz':
      return dated('a date and time with its offset, like 2026-01-31T12:00:00Z', `${day}[T ]${clock}${offset}`);
    case 'timestamp':
      return dated('a date and time without offset, like 2026-01-31T12:00:00', `${day}[T ]${clock}`);
    case 'date':
      return dated('a date, like 2026-01-31', day);
    case 'time':
      return readable('a time of day, like 12:00:00', (t) => new RegExp(`^${clock}$`).test(t));
    case 'json':
    case 'jsonb':
      return jsonDocument;
    default:
      if (column.type.endsWith('[]')) {
        const base = column.base.replace(/^_/, '');
        const element = valueSchema({ ...column, base, type: column.type.slice(0, -2) });
        return arrayOf(element, column.type, base === 'json' || base === 'jsonb');
      }
      // an enum, a network address, a domain over a number: Postgres reads the text
      return readable(
        `text that Postgres reads as ${column.type}`,
        () => true,
        (value) => (typeof value === 'boolean' ? String(value) : digits(value)),
      );
  }
}

type Fields = ReadonlyMap<string, { column: Column; schema: z.ZodType<string> }>;

/**
 * A schema of objects. It does not use zod's own objects: if a body lacks a column named "constructor", zod
 * finds the constructor of Object.prototype instead.
 */
function objectOf(fields: Fields, required: (column: Column) => boolean, repeatsReadOnly: boolean): z.ZodType<Values> {
  return z.unknown().transform((body, context) => {
    if (typeof body !== 'object' || body === null || Array.isArray(body) || exactJson.isRawJSON(body)) {
      context.addIssue({ code: 'custom', message: 'The body must be a JSON object' });
      return z.NEVER;
    }
    const sources = sourcesIn(body);
    const sent = new Map<string, unknown>(Object.entries(body));
    const values: Value[] = [];
    const refuse = (column: Column, message: string, path: readonly PropertyKey[] = []) =>
      context.addIssue({ code: 'custom', message, path: [column.name, ...path] });
    for (const { column, schema } of fields.values()) {
      if (!sent.has(column.name)) {
        if (column.writable && required(column)) refuse(column, 'is required');
        continue;
      }
      const value = sent.get(column.name);
      if (!column.writable && !repeatsReadOnly) {
        refuse(column, 'is read-only');
        continue;
      }
      if (!column.writable) {
        const document = jsonDocument.safeParse(value);
        if (document.success) values.push({ column, text: document.data, json: document.data });
        else refuse(column, 'is nested too deeply');
      } else if (value === null && column.nullable) values.push({ column, text: null, json: 'null' });
      else {
        const read = schema.safeParse(value);
        const json = sources?.get(column.name) ?? JSON.stringify(value);
        const isDocument = column.structured || /^jsonb?$/.test(column.base);
        if (read.success) values.push({ column, text: isDocument ? json : read.data, json });
        else for (const { message, path } of read.error.issues) refuse(column, message, path);
      }
    }
    const unknown = [...sent.keys()].filter((name) => !fields.has(name));
    if (unknown.length > 0) context.addIssue({ code: 'unrecognized_keys', keys: unknown, input: { ...body } });
    return values;
  });
}

/** What is made of a table once for each Table object, and so for each version of the table. */
const made = new WeakMap<Table, { fields: Fields; schemas: RowSchemas }>();

/** The schemas for a table. `isExpected`: whether the client may send a column, so that it may be required. */
export function rowSchemas(table: Table, isExpected?: (column: Column) => boolean): RowSchemas {
  let known = made.get(table);
  if (!known) {
    const fields = new Map(table.columns.map((column) => [column.name, { column, schema: valueSchema(column) }]));
    made.set(table, (known = { fields, schemas: schemasOf(table, fields) }));
  }
  return isExpected ? schemasOf(table, known.fields, isExpected) : known.schemas;
}

function schemasOf(table: Table, fields: Fields, isExpected = (_column: Column) => true): RowSchemas {
  const isRequired = (column: Column) => !column.optional && isExpected(column);
  return {
    create: objectOf(fields, isRequired, false),
    replace: objectOf(fields, (column) => isRequired(column) && !table.keyColumns.includes(column.name), true),
    patch: objectOf(fields, () => false, true).refine((values) => values.length > 0, {
      error: 'The body must have at least one field',
    }),
  };
}
