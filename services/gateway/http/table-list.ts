/**
 * The attached tables as the test page needs them: for its list of tables, for the columns of the rows that
 * it shows, and for the fields of its form.
 */
import type { Column } from '../catalog/catalog.ts';
import type { TableView } from './table-view.ts';

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

/** The tables that exist for the viewer, sorted by name, with the columns that it may read. */
export function listTables(views: readonly TableView[]): ListedTable[] {
  return views
    .map((view): ListedTable => {
      const { name, keyColumns, columns } = view.table;
      const listed = columns.filter(
        (column) => view.isReadable(column) || (view.rights?.read === null && view.isWritable(column)),
      );
      return { name, key: keyColumns, columns: listed.map((column) => listColumn(view, column)) };
    })
    .sort((a, b) => (a.name < b.name ? -1 : 1));
}

function listColumn(view: TableView, column: Column): ListedColumn {
  const { name, type, base, structured, optional } = column;
  const { rights } = view;
  const isWritable = view.isWritable(column) && (rights?.insert !== null || rights.update !== null);
  return {
    name,
    type,
    isWritable,
    isRequired: !optional && (isWritable || rights === null),
    isJson: jsonTypes.has(base) || base.startsWith('_') || (structured ?? null) !== null,
  };
}
