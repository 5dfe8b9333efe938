/**
 * SQL for a row's key, and for the values that a request writes. The row has the alias t. Invariants:
 * - No name depends on search_path.
 * - Values are parameters without a cast to a type with a length, so that Postgres gives each the type of its
 *   column. A cast to varchar(20) would cut a longer text silently.
 * - If a value equals the one in the row's image, the column keeps its stored value. JSON does not show
 *   everything, for example the bounds of an array, or whether a null is SQL's or JSON's.
 */

import { quoted } from '#shared/postgres/postgres.ts';
import type { Column, Table } from '../catalog/catalog.ts';
import type { Value } from './row-values.ts';

/** The parameters of a statement, numbered in the order in which they are added. */
export class Parameters {
  readonly values: (string | string[] | null)[] = [];
  /** the column of each parameter, so that an error can name the field */
  readonly columns: string[] = [];

  /** Returns the parameter's name in the statement: $3. */
  add(value: string | string[] | null, column = ''): string {
    this.columns.push(column);
    return `$${this.values.push(value)}`;
  }

  addAll(values: readonly (string | string[] | null)[]): void {
    for (const value of values) this.add(value);
  }
}

const same = 'operator(pg_catalog.=)';

/** The columns of a table's key, in key order. */
function keyColumnsOf(table: Table): Column[] {
  return table.keyColumns.map((name) => table.columns.find((column) => column.name === name)!);
}

/**
 * A parameter with the value of a key column. The operators of composite types take any record, so a text
 * without a type needs a cast.
 */
function keyValue({ name, structured }: Column, text: string, parameters: Parameters): string {
  return `${parameters.add(text, name)}${structured ? `::${structured}` : ''}`;
}

/** An SQL condition: the row has this key. */
export function keyIs(table: Table, key: readonly string[], parameters: Parameters): string {
  const is = (column: Column, index: number) =>
    `t.${quoted(column.name)} ${column.equals ?? same} ${keyValue(column, key[index]!, parameters)}`;
  return keyColumnsOf(table).map(is).join(' and ');
}

/** An SQL condition: the row comes after this key, in key order. */
export function keyIsAfter(table: Table, key: readonly string[], parameters: Parameters): string {
  const columns = keyColumnsOf(table);
  const above = columns.map((column) => column.above ?? 'operator(pg_catalog.>)');
  const names = columns.map((column) => `t.${quoted(column.name)}`);
  const values = columns.map((column, index) => keyValue(column, key[index]!, parameters));
  // a row comparison can use the key's index, but needs the same operator for all columns
  if (new Set(above).size === 1) return `(${names.join(', ')}) ${above[0]} (${values.join(', ')})`;
  const places = columns.map((_, place) => {
    const before = names.slice(0, place).map((name, i) => `${name} ${columns[i]!.equals ?? same} ${values[i]}`);
    return `(${[...before, `${names[place]} ${above[place]} ${values[place]}`].join(' and ')})`;
  });
  return `(${places.join(' or ')})`;
}

/** SQL for a value of a new row. */
export function newValue({ column, text }: Value, parameters: Parameters): string {
  if (!column.structured || text === null) return parameters.add(text, column.name);
  // a JSON string holds the type's own text
  if (text.startsWith('"')) return parameters.add(JSON.parse(text) as string, column.name);
  const document = `${parameters.add(`{"v":${text}}`, column.name)}::pg_catalog.json`;
  return `(select r.v from pg_catalog.json_to_record(${document}) as r(v ${column.structured}))`;
}

/** Says how the row is shown: SQL for its image. */
type Shown = Pick<Table, 'imageSql'>;

/** SQL for a value of an existing row. */
export function changedValue(of: Shown, value: Value, parameters: Parameters): string {
  const { column, json } = value;
  let isSame: string;
  if (column.structured) isSame = sameJson(of, value, parameters);
  else if (/^(_|jsonb?$)/.test(column.base)) {
    const now = `pg_catalog.btrim(${shown(of, column, parameters)}::pg_catalog.text, e' \\t\\n\\r')`;
    isSame = `${now} ${same} ${parameters.add(json)}`;
  } else return newValue(value, parameters);
  return `case when ${isSame} then t.${quoted(column.name)} else ${newValue(value, parameters)} end`;
}

/** An SQL condition: the column has this value, compared as JSON. */
export function sameJson(of: Shown, { column, json }: Value, parameters: Parameters): string {
  const now = `${shown(of, column, parameters)}::pg_catalog.text::pg_catalog.jsonb`;
  return `${now} ${same} ${parameters.add(json)}::pg_catalog.jsonb`;
}

/** SQL for a column's value in the row's image. */
function shown({ imageSql }: Shown, column: Column, parameters: Parameters): string {
  const name = `${parameters.add(column.name)}::pg_catalog.text`;
  return `pg_catalog.json_extract_path((${imageSql})::pg_catalog.json, ${name})`;
}
