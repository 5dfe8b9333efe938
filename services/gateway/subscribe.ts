/** From the words of a `subscribe` (or an event stream's URL) to a channel: what the catalog and the filter have to say to them. */
import type { Catalog, Table } from '#shared/catalog.ts';
import { type Position, type ProtocolErrorCode, parsePosition } from '#shared/wire.ts';
import { FilterError } from './filter.ts';
import type { ChannelWords } from './filtered-channel.ts';
import { RowFilter } from './row-filter.ts';

/** The request cannot be served; the connection can. */
export class Refused extends Error {
  override readonly name = 'Refused';
  readonly code: ProtocolErrorCode;

  constructor(code: ProtocolErrorCode, message: string) {
    super(message);
    this.code = code;
  }
}

export interface Asked {
  table: string;
  where?: unknown;
  columns?: readonly string[] | undefined;
  from?: string | undefined;
}

/** Throws Refused. */
export function wordsOf(asked: Asked, catalog: Catalog): ChannelWords {
  const table = catalog.byName(asked.table);
  if (!table) throw new Refused('UNKNOWN_TABLE', `there is no table ${JSON.stringify(asked.table)}`);
  return {
    table,
    filter: filterOf(table, asked.where),
    columns: asked.columns ? columnsOf(table, asked.columns) : null,
  };
}

/** Throws Refused. */
export function positionOf(asked: Asked): Position | null {
  if (asked.from === undefined) return null;
  const position = parsePosition(asked.from);
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
