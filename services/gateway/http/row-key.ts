/**
 * Parses the key of a row, from the path of a URL or from a page cursor, into the texts that Postgres
 * reads, in key order. row-address.ts makes a path of a key.
 */
import type { Column, Table } from '../catalog/catalog.ts';
import type { FieldError } from './errors.ts';
import { parseSegment } from './row-address.ts';
import { anyText, numberPattern, valueSchema } from './row-values.ts';

/** The values of the key, or an error for each wrong column. */
export type ParsedKey = { ok: true; values: string[] } | { ok: false; fields: FieldError[] };

/**
 * Parses the last segment of a URL, such as 7 in `/api/items/7`. If the key has several columns, the
 * segment has their values in key order, each percent-encoded, with commas between them:
 * `/api/sales.lines/A%2C1,7` is the row with a = "A,1" and b = 7.
 */
export function parseKey(table: Table, segment: string): ParsedKey {
  const parts = parseSegment(segment, table.keyColumns.length > 1);
  if (parts.length !== table.keyColumns.length) {
    const message = `must be ${table.keyColumns.length} values with commas between them: ${table.keyColumns.join(',')}`;
    return { ok: false, fields: [{ path: 'id', message }] };
  }
  return readKey(table, parts);
}

/** Parses a key whose values are separate already, as in a page cursor. */
export function readKey(table: Table, texts: readonly string[]): ParsedKey {
  const values: string[] = [];
  const fields: FieldError[] = [];
  for (const [index, name] of table.keyColumns.entries()) {
    const column = table.columns.find((candidate) => candidate.name === name)!;
    // if a column of the key is an array or a document, its text is already in Postgres' own format
    const schema = column.structured || /^(json|_)|vector$/.test(column.base) ? anyText : valueSchema(column);
    const read = schema.safeParse(jsonOf(column, texts[index]!));
    if (read.success) values.push(read.data);
    else fields.push({ path: name, message: read.error.issues[0]!.message });
  }
  return fields.length === 0 ? { ok: true, values } : { ok: false, fields };
}

/** Turns a text into the JSON value that the column's schema expects. */
function jsonOf(column: Column, value: string): unknown {
  if (/^(int[24]|float[48])$/.test(column.base)) return numberPattern.test(value) ? Number(value) : value;
  if (column.base === 'bool') return { true: true, false: false }[value] ?? value;
  return value;
}
