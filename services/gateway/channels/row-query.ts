/**
 * Turns a request for rows (a `subscribe`, or an event stream's URL) into a query, after checking
 * the request against the catalog and the filter's rules.
 */
import { hash } from 'node:crypto';
import { isDeepStrictEqual } from 'node:util';
import { type Position, type ProtocolErrorCode, parsePosition } from '#shared/wire.ts';
import type { Catalog, Table } from '../catalog/catalog.ts';
import { FilterError, RowFilter } from '../filter/row-filter.ts';

/** The request cannot be served. The connection stays open. */
export class Refused extends Error {
  override readonly name = 'Refused';
  readonly code: ProtocolErrorCode;

  constructor(code: ProtocolErrorCode, message: string) {
    super(message);
    this.code = code;
  }
}

/** The rows that a client asks for, as the client wrote it. */
export interface RowRequest {
  table: string;
  where?: unknown;
  columns?: readonly string[] | undefined;
}

/** A request that was resolved against the catalog. */
export interface RowQuery {
  /** identifies the request, as resolved against the table at that time; every replica makes the same name */
  name: string;
  table: Table;
  filter: RowFilter | null;
  /** the columns that are sent, always with those of the key; null: all columns */
  columns: readonly string[] | null;
  request: RowRequest;
}

/** Throws Refused. */
export function queryOf({ table: tableName, where, columns: wanted }: RowRequest, catalog: Catalog): RowQuery {
  const table = catalog.byName(tableName);
  if (!table) throw new Refused('UNKNOWN_TABLE', `there is no table ${JSON.stringify(tableName)}`);
  // a column of the key was dropped: nothing identifies a row until the table has another key
  if (!table.keyColumns.every((name) => table.columns.some((column) => column.name === name)))
    throw new Refused('UNAVAILABLE', `the table ${JSON.stringify(tableName)} has no primary key at the moment`);
  const filter = filterOf(table, where);
  const columns = wanted ? columnsOf(table, wanted) : null;
  const request = { table: tableName, where, columns: wanted };
  return { name: nameOf(table, filter, columns), table, filter, columns, request };
}

/** Whether both queries mean the same rows and columns, even if the requests were written in different ways. */
export function isSame(one: RowQuery, other: RowQuery): boolean {
  return (
    one.table.name === other.table.name &&
    one.filter?.key === other.filter?.key &&
    isDeepStrictEqual(one.columns, other.columns)
  );
}

/**
 * A hash that names the request. A subscription keeps its name when its table gets another key. So
 * the name of a request with chosen columns also depends on the key's columns: a request under the
 * new key never gets the name of a different request under the former key.
 */
function nameOf(table: Table, filter: RowFilter | null, columns: readonly string[] | null): string {
  const shape = columns && [[...table.keyColumns].sort(), [...columns].sort()];
  const text = JSON.stringify([table.name, filter?.key ?? null, shape]);
  // `hash` needs no Hash object. A Hash object holds OpenSSL's memory until it is collected, which is
  // much memory if thousands of clients subscribe at once.
  return hash('sha256', text, 'base64url').slice(0, 10);
}

/** Throws Refused. */
export function positionOf({ from }: { from?: string | undefined }): Position | null {
  if (from === undefined) return null;
  const position = parsePosition(from);
  if (!position) throw new Refused('INVALID_POSITION', 'from: not a position');
  return position;
}

function filterOf(table: Table, where: unknown): RowFilter | null {
  if (where === undefined || where === null) return null;
  try {
    const filter = RowFilter.parse(table, where);
    return filter.isEmpty ? null : filter;
  } catch (error) {
    if (error instanceof FilterError)
      throw new Refused(error.code === 'UNREADABLE_COLUMN' ? 'FORBIDDEN' : error.code, error.message);
    throw error;
  }
}

function columnsOf(table: Table, wanted: readonly string[]): string[] {
  for (const name of wanted) {
    if (!table.columns.some((column) => column.name === name))
      throw new Refused('UNKNOWN_COLUMN', `columns: ${table.name} has no column ${JSON.stringify(name)}`);
  }
  return table.columns
    .map(({ name }) => name)
    .filter((name) => wanted.includes(name) || table.keyColumns.includes(name));
}
