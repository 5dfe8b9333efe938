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

/** 60 bits; a client can find two requests with one name, which only confuses that client */
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

/** The rows that a client asks for, as the client wrote it. */
export interface RowRequest {
  table: string;
  where?: unknown;
  columns?: readonly string[] | undefined;
}

/** A request that was resolved against the catalog, under the rights of a viewer. */
export interface RowQuery {
  /** identifies the request, as resolved against the table at that time; every replica makes the same name */
  name: string;
  /** equal for equal rows, columns and readable columns; unlike a name, it cannot be made equal on purpose */
  digest: string;
  /** the digest before the filter's sets were loaded */
  rule: string;
  table: Table;
  /** the rows that the viewer may read and the client asked for; null: all */
  filter: RowFilter | null;
  /** the key of the client's own filter; null: the client asked for all rows */
  whereKey: string | null;
  /** the columns that are sent, always with those of the key; null: all columns */
  columns: readonly string[] | null;
  /** the columns that the viewer may read: an update of other columns is not sent; null: all columns */
  readable: readonly string[] | null;
  /** the table's policies decide about the rows; false: AUTH=off, or an operator asks */
  isRuled: boolean;
  request: RowRequest;
}

/** Against what a request is resolved. */
export interface Terms {
  catalog: Catalog;
  rights: Rights;
}

/** Throws Refused. A table that the viewer may not read is refused as one that does not exist. */
export function queryOf(request: RowRequest, { catalog, rights }: Terms, viewer: Viewer | null): RowQuery {
  const { table: tableName, where, columns: wanted } = request;
  const table = catalog.byName(tableName);
  const visible = table && visibleTable(table, rights, viewer);
  if (!visible) throw new Refused('UNKNOWN_TABLE', `there is no table ${JSON.stringify(tableName)}`);
  // a column of the key was dropped: nothing identifies a row until the table has another key
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

/** The query with a filter whose sets are loaded. */
export function withSets(query: RowQuery, filter: RowFilter): RowQuery {
  return { ...finished({ ...query, filter }), rule: query.rule };
}

/** Whether both queries mean the same rows and columns, even if the requests were written in different ways. */
export function isSame(one: RowQuery, other: RowQuery): boolean {
  return one.digest === other.digest;
}

/** The rows and columns of a table that the viewer may read; null: none. A filter is null where all rows are. */
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

/** The name of a query with this digest, unless its client knows it by another one. */
export const nameOf = (digest: string): string => digest.slice(0, nameLength);

/** A name for a query whose usual name is that of another subscription of the same client. */
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
