/**
 * The attached tables as the test page needs them: for its list of tables, for the columns of the rows that
 * it shows, and for the fields of its form.
 */
import type { Column, Table } from '../catalog/catalog.ts';

interface ListedColumn {
  name: string;
  /** as Postgres prints it */
  type: string;
  isWritable: boolean;
  /** an INSERT must set this column */
  isRequired: boolean;
  /** values of this column are JSON, but not strings: numbers, booleans, arrays or objects */
  isJson: boolean;
}

export interface ListedTable {
  name: string;
  /** the columns of the primary key */
  key: readonly string[];
  columns: ListedColumn[];
}

const jsonTypes = new Set(['int2', 'int4', 'int8', 'float4', 'float8', 'numeric', 'bool', 'json', 'jsonb']);

/** All tables, sorted by name. */
export function listTables(tables: readonly Table[]): ListedTable[] {
  return tables
    .map(({ name, keyColumns, columns }) => ({ name, key: keyColumns, columns: columns.map(listColumn) }))
    .sort((a, b) => (a.name < b.name ? -1 : 1));
}

function listColumn({ name, type, base, structured, writable, optional }: Column): ListedColumn {
  return {
    name,
    type,
    isWritable: writable,
    isRequired: !optional,
    isJson: jsonTypes.has(base) || base.startsWith('_') || (structured ?? null) !== null,
  };
}
