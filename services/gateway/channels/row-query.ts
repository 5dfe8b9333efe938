/** From the words of a `subscribe` (or an event stream's URL) to a channel: what the catalog and the filter have to say to them. */
import { hash } from 'node:crypto';
import { isDeepStrictEqual } from 'node:util';
import { type Position, type ProtocolErrorCode, parsePosition } from '#shared/wire.ts';
import type { Catalog, Table } from '../catalog/catalog.ts';
import { FilterError, RowFilter } from '../filter/row-filter.ts';
import type { ChannelWords } from './rows-channel.ts';

/** The request cannot be served; the connection can. */
export class Refused extends Error {
  override readonly name = 'Refused';
  readonly code: ProtocolErrorCode;

  constructor(code: ProtocolErrorCode, message: string) {
    super(message);
    this.code = code;
  }
}

/** The rows that a client asks for, in its own words. */
export interface Asked {
  table: string;
  where?: unknown;
  columns?: readonly string[] | undefined;
}

/** Throws Refused. */
export function wordsOf({ table: tableName, where, columns: wanted }: Asked, catalog: Catalog): ChannelWords {
  const table = catalog.byName(tableName);
  if (!table) throw new Refused('UNKNOWN_TABLE', `there is no table ${JSON.stringify(tableName)}`);
  // a key's column was dropped: rows cannot be told apart until the table has another key
  if (!table.keyColumns.every((name) => table.columns.some((column) => column.name === name)))
    throw new Refused('UNAVAILABLE', `the table ${JSON.stringify(tableName)} has no primary key at the moment`);
  const filter = filterOf(table, where);
  const columns = wanted ? columnsOf(table, wanted) : null;
  const asked = { table: tableName, where, columns: wanted };
  return { name: nameOf(table, filter, columns), table, filter, columns, asked };
}

/** Both ask for the same rows in the same shape, in whatever words. */
export function isSame(one: ChannelWords, other: ChannelWords): boolean {
  return (
    one.table.name === other.table.name &&
    one.filter?.key === other.filter?.key &&
    isDeepStrictEqual(one.columns, other.columns)
  );
}

/**
 * A subscription keeps this name where its table gets another key. So the key is part of a name of columns: what is asked for under
 * the new key never has the name of something else that was asked for under the former.
 */
function nameOf(table: Table, filter: RowFilter | null, columns: readonly string[] | null): string {
  const shape = columns && [[...table.keyColumns].sort(), [...columns].sort()];
  const words = JSON.stringify([table.name, filter?.key ?? null, shape]);
  // in one call: a Hash object holds memory of OpenSSL's until it is collected, much of it where thousands subscribe at once
  return hash('sha256', words, 'base64url').slice(0, 10);
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
    const filter = new RowFilter(table, where);
    return filter.isEmpty ? null : filter;
  } catch (error) {
    if (error instanceof FilterError) throw new Refused(error.code, error.message);
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
