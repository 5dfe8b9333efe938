/**
 * SQL of a row's key and of the values that a request writes, about the alias t. What must stay true: nothing here is looked for along
 * search_path; values are parameters without casts to a length, so that Postgres takes each as the type of its column (a cast to varchar(20) would
 * cut silently); and a value that is what the row shows already leaves the column as it is, since of some values JSON does not say all
 * (the bounds of an array, a json null where null may be).
 */

import { quoted } from '#shared/postgres/postgres.ts';
import type { Column, Table } from '../catalog/catalog.ts';
import type { Value } from './row-values.ts';

/** The parameters of a statement, numbered as they come. */
export class Parameters {
  readonly values: (string | string[] | null)[] = [];
  /** of each the column that it is for, so that an error can name it */
  readonly columns: string[] = [];

  /** Returns its name in the statement: $3. */
  add(value: string | string[] | null, column = ''): string {
    this.columns.push(column);
    return `$${this.values.push(value)}`;
  }
}

const same = 'operator(pg_catalog.=)';

/** The columns of a table's key, in its order. */
function keyColumnsOf(table: Table): Column[] {
  return table.keyColumns.map((name) => table.columns.find((column) => column.name === name)!);
}

/** The operators of composite types are for any record, which text alone is none of. */
function keyValue({ name, structured }: Column, text: string, parameters: Parameters): string {
  return `${parameters.add(text, name)}${structured ? `::${structured}` : ''}`;
}

/** The row that has this key. */
export function keyIs(table: Table, key: readonly string[], parameters: Parameters): string {
  const is = (column: Column, index: number) =>
    `t.${quoted(column.name)} ${column.equals ?? same} ${keyValue(column, key[index]!, parameters)}`;
  return keyColumnsOf(table).map(is).join(' and ');
}

/** Rows behind this key, in the order of keys. */
export function keyIsBehind(table: Table, key: readonly string[], parameters: Parameters): string {
  const columns = keyColumnsOf(table);
  const above = columns.map((column) => column.above ?? 'operator(pg_catalog.>)');
  const names = columns.map((column) => `t.${quoted(column.name)}`);
  const values = columns.map((column, index) => keyValue(column, key[index]!, parameters));
  // a comparison of rows finds its place in the index, and has one operator for all of them
  if (new Set(above).size === 1) return `(${names.join(', ')}) ${above[0]} (${values.join(', ')})`;
  const places = columns.map((_, place) => {
    const before = names.slice(0, place).map((name, i) => `${name} ${columns[i]!.equals ?? same} ${values[i]}`);
    return `(${[...before, `${names[place]} ${above[place]} ${values[place]}`].join(' and ')})`;
  });
  return `(${places.join(' or ')})`;
}

/** A value for a new row. */
export function newValue({ column, text }: Value, parameters: Parameters): string {
  if (!column.structured || text === null) return parameters.add(text, column.name);
  // the text of the type itself
  if (text.startsWith('"')) return parameters.add(JSON.parse(text) as string, column.name);
  const document = `${parameters.add(`{"v":${text}}`, column.name)}::pg_catalog.json`;
  return `(select r.v from pg_catalog.json_to_record(${document}) as r(v ${column.structured}))`;
}

/** A value for a row that is there. */
export function changedValue(table: Table, value: Value, parameters: Parameters): string {
  const { column, json } = value;
  let isSame: string;
  if (column.structured) isSame = sameJson(table, value, parameters);
  else if (/^(_|jsonb?$)/.test(column.base)) {
    const now = `pg_catalog.btrim(${shown(table, column, parameters)}::pg_catalog.text, e' \\t\\n\\r')`;
    isSame = `${now} ${same} ${parameters.add(json)}`;
  } else return newValue(value, parameters);
  return `case when ${isSame} then t.${quoted(column.name)} else ${newValue(value, parameters)} end`;
}

/** Whether a column of the row has this value, as JSON has it. */
export function sameJson(table: Table, { column, json }: Value, parameters: Parameters): string {
  const now = `${shown(table, column, parameters)}::pg_catalog.text::pg_catalog.jsonb`;
  return `${now} ${same} ${parameters.add(json)}::pg_catalog.jsonb`;
}

/** What the row's image shows of a column. */
function shown(table: Table, column: Column, parameters: Parameters): string {
  const name = `${parameters.add(column.name)}::pg_catalog.text`;
  return `pg_catalog.json_extract_path((${table.imageSql})::pg_catalog.json, ${name})`;
}
