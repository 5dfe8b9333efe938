/**
 * Turns a request for rows (a `subscribe`, or an event stream's URL) into a query, after checking
 * the request against the catalog, the filter's rules and the viewer's rights.
 */
import { hash } from 'node:crypto';
import { type Position, type ProtocolErrorCode, parsePosition } from '#shared/wire.ts';
import type { Viewer } from '../access/viewer.ts';
import type { Catalog, Table } from '../catalog/catalog.ts';
import { FilterError, RowFilter } from '../filter/row-filter.ts';
import type { Rights } from '../rights/rights.ts';

/** 60 bits. A client can search for two requests with the same name, but this can only confuse the client itself. */
const nameLength = 10;

/** The request cannot be served. The connection stays open. */
export class Refused extends Error {
  override readonly name = 'Refused';
  readonly code: ProtocolErrorCode;

  constructor(code: ProtocolErrorCode, message: string, options?: ErrorOptions) {
    super(message, options);
    this.code = code;
  }
}

/** The rows that a client requests, in the client's own notation. */
export interface RowRequest {
  table: string;
  where?: unknown;
  columns?: readonly string[] | undefined;
}

/** A request that was resolved against the catalog, under the rights of a viewer. */
export interface RowQuery {
  /** identifies the request, as resolved against the table at that time; the same at every replica */
  name: string;
  /**
   * equal for equal rows, columns and readable columns. Unlike a name, a digest is so long that nobody can find two
   * different requests with the same digest.
   */
  digest: string;
  /** the digest that the query had before the filter's sets were loaded */
  rule: string;
  table: Table;
  /** admits the rows that the viewer may read and that the client requested; null: all rows */
  filter: RowFilter | null;
  /** the key of the client's own filter; null: the client requested all rows */
  whereKey: string | null;
  /** the columns that are sent, which always include the columns of the key; null: all columns */
  columns: readonly string[] | null;
  /** the columns that the viewer may read; null: all columns. An update of only other columns is not sent. */
  readable: readonly string[] | null;
  /** true: the table's policies decide which rows are sent; false: AUTH=off, or the viewer is an operator */
  isRuled: boolean;
  request: RowRequest;
}

/** The tables and rights that a request is resolved against. */
export interface Terms {
  catalog: Catalog;
  rights: Rights;
}

/** Throws Refused. The error for a table that the viewer may not read is the error for a table that does not exist. */
export function queryOf(request: RowRequest, { catalog, rights }: Terms, viewer: Viewer | null): RowQuery {
  const { table: tableName, where, columns: wanted } = request;
  const table = catalog.byName(tableName);
  const visible = table && visibleTable(table, rights, viewer);
  if (!visible) throw new Refused('UNKNOWN_TABLE', `there is no table ${JSON.stringify(tableName)}`);
  // if a column of the key was dropped, nothing identifies a row until the table has a new key
  if (!table.keyColumns.every((name) => table.columns.some((column) => column.name === name)))
    throw new Refused('UNAVAILABLE', `the table ${JSON.stringify(tableName)} has no primary key at the moment`);
  const asked = filterOf(table, where, visible.readable);
  const columns = wanted ? columnsOf(table, wanted, visible.readable) : visible.readable;
  return finished({
    table,
    filter: both(visible.filter, asked),
    whereKey: asked?.key ?? null,
    columns,
    readable: visible.readable,
    isRuled: viewer !== null,
    request: { table: tableName, where, columns: wanted },
  });
}

/** All rows and columns of a table that the viewer may read; null: for the viewer, the table does not exist. */
export function wholeTable(table: Table, rights: Rights, viewer: Viewer): RowQuery | null {
  const visible = visibleTable(table, rights, viewer);
  if (!visible) return null;
  const { filter, readable } = visible;
  const request = { table: table.name };
  return finished({ table, filter, whereKey: null, columns: readable, readable, isRuled: true, request });
}

/** The query with another filter: its own filter after the sets were loaded. */
export function withSets(query: RowQuery, filter: RowFilter): RowQuery {
  return { ...finished({ ...query, filter }), rule: query.rule };
}

/** Whether both queries mean the same rows and columns, even if the requests were written in different ways. */
export function isSame(one: RowQuery, other: RowQuery): boolean {
  return one.digest === other.digest;
}

/** The rows and columns of a table that the viewer may read; null: none. `filter` null: all rows. */
function visibleTable(
  table: Table,
  rights: Rights,
  viewer: Viewer | null,
): { filter: RowFilter | null; readable: readonly string[] | null } | null {
  if (viewer === null) return { filter: null, readable: null };
  const own = rights.of(table, viewer);
  if (!own?.read) return null;
  return { filter: own.read.isEmpty ? null : own.read, readable: own.readable };
}

const both = (policy: RowFilter | null, asked: RowFilter | null) => (policy ? policy.and(asked) : asked);

function finished(parts: Omit<RowQuery, 'name' | 'digest' | 'rule'>): RowQuery {
  const digest = digestOf(parts);
  return { ...parts, name: nameOf(digest), digest, rule: digest };
}

/** The usual name of a query with this digest. A subscription that existed before may have another name. */
export const nameOf = (digest: string): string => digest.slice(0, nameLength);

/** A name for a query whose usual name is already in use by another subscription of the same client. */
export const otherNameOf = (digest: string): string => digest.slice(nameLength, 2 * nameLength);

/**
 * A hash of all that decides what a channel sends. A subscription keeps its name when its table gets another key. So
 * the digest of a request with chosen columns also depends on the key's columns: a request under the new key never
 * gets the name of a different request under the former key.
 */
function digestOf({ table, filter, columns, readable }: Omit<RowQuery, 'name' | 'digest' | 'rule'>): string {
  const shape = columns && [[...table.keyColumns].sort(), [...columns].sort()];
  const parts = [table.name, filter?.key ?? null, shape];
  const text = JSON.stringify(readable ? [...parts, [...readable].sort()] : parts);
  // `hash` needs no Hash object. A Hash object holds OpenSSL's memory until it is collected, which is
  // much memory if thousands of clients subscribe at once.
  return hash('sha256', text, 'base64url');
}

/** Throws Refused. */
export function positionOf({ from }: { from?: string | undefined }): Position | null {
  if (from === undefined) return null;
  const position = parsePosition(from);
  if (!position) throw new Refused('INVALID_POSITION', 'from: not a position');
  return position;
}

function filterOf(table: Table, where: unknown, readable: readonly string[] | null): RowFilter | null {
  if (where === undefined || where === null) return null;
  try {
    const filter = RowFilter.parse(table, where, readable);
    return filter.isEmpty ? null : filter;
  } catch (error) {
    if (error instanceof FilterError)
      throw new Refused(error.code === 'UNREADABLE_COLUMN' ? 'FORBIDDEN' : error.code, error.message);
    throw error;
  }
}

function columnsOf(table: Table, wanted: readonly string[], readable: readonly string[] | null): string[] {
  for (const name of wanted) {
    if (!table.columns.some((column) => column.name === name))
      throw new Refused('UNKNOWN_COLUMN', `columns: ${table.name} has no column ${JSON.stringify(name)}`);
    if (readable && !readable.includes(name))
      throw new Refused('FORBIDDEN', `columns: you may not read the column ${JSON.stringify(name)}`);
  }
  return table.columns
    .map(({ name }) => name)
    .filter((name) => wanted.includes(name) || table.keyColumns.includes(name));
}
