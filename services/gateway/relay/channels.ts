/**
 * The channels that clients follow. A channel is made for its first cursor, shared by all cursors
 * with the same request, and removed with its last cursor.
 */
import { type Batch, BatchReader, isBreak } from '#shared/log/batch.ts';
import type { Catalog } from '../catalog/catalog.ts';
import { Change } from '../channels/change.ts';
import type { Channel } from '../channels/channel.ts';
import type { Framing } from '../channels/framing.ts';
import type { Ring } from '../channels/ring.ts';
import type { RowQuery } from '../channels/row-query.ts';
import { channelKey, RowsChannel } from '../channels/rows-channel.ts';
import { FrameHeads } from '../channels/table-frames.ts';
import { TableIndex } from '../channels/table-index.ts';
import { type TableSet, TablesChannel, tablesKey } from '../channels/tables-channel.ts';
import type { Cursor } from './cursor.ts';

export class Channels {
  readonly #catalog: Catalog;
  readonly #ring: Ring;
  readonly #heads: FrameHeads;
  readonly #tables = new Map<string, TablesChannel<Cursor>>();
  readonly #rows = new Map<string, RowsChannel<Cursor>>();
  /** by Table.id; only of tables with a rows channel */
  readonly #indexes = new Map<number, TableIndex<Cursor>>();

  constructor(catalog: Catalog, ring: Ring) {
    this.#catalog = catalog;
    this.#ring = ring;
    this.#heads = new FrameHeads((relation) => catalog.byId(relation)?.name);
  }

  *[Symbol.iterator](): Iterator<Channel<Cursor>> {
    yield* this.#tables.values();
    yield* this.#rows.values();
  }

  /** Plain mode's channels. */
  get ofTables(): Iterable<TablesChannel<Cursor>> {
    return this.#tables.values();
  }

  /** Plain mode's channel for a set of tables. */
  forTables(tables: TableSet): TablesChannel<Cursor> {
    const key = tablesKey(tables);
    let channel = this.#tables.get(key);
    if (!channel) {
      channel = new TablesChannel(tables, { catalog: this.#catalog, heads: this.#heads, ring: this.#ring });
      this.#tables.set(key, channel);
    }
    return channel;
  }

  /** The channel for these rows with these columns. */
  forRows(query: RowQuery, framing: Framing): RowsChannel<Cursor> {
    const key = channelKey(query, framing);
    let channel = this.#rows.get(key);
    // the table was altered after this channel was made: a new channel replaces it, and its cursors are paused
    if (channel?.table !== query.table) {
      let index = this.#indexes.get(query.table.id);
      if (index?.table !== query.table) {
        index = new TableIndex(query.table);
        this.#indexes.set(query.table.id, index);
      }
      channel = new RowsChannel(query, { ring: this.#ring, framing });
      this.#rows.set(key, channel);
      index.add(channel);
    }
    return channel;
  }

  /** Called when the channel has no cursor left. */
  readonly forget = (channel: Channel): void => {
    const { key } = channel;
    if (this.#tables.get(key) === channel) this.#tables.delete(key);
    const rows = this.#rows.get(key);
    // a channel that was replaced after its table was altered is in no index any more
    if (!rows || rows !== channel) return;
    this.#rows.delete(key);
    const index = this.#indexes.get(rows.table.id);
    index?.remove(rows);
    if (index?.size === 0) this.#indexes.delete(rows.table.id);
  };

  /** All cursors, as a new list: a cursor that begins again may move to another channel while the caller iterates. */
  cursors(): Cursor[] {
    return [...this].flatMap(({ members }) => [...members]);
  }

  /** The cursors of channels about one of these tables, by Table.id. */
  cursorsOf(tables: ReadonlySet<number>): Cursor[] {
    const concerned: Cursor[] = [];
    for (const { table, members } of this.#rows.values()) if (tables.has(table.id)) concerned.push(...members);
    return concerned;
  }

  /** The live cursors of channels about a table, by Table.id. */
  liveCursorsOf(relation: number): Cursor[] {
    return [...(this.#indexes.get(relation)?.channels ?? [])].flatMap(({ live }) => live);
  }

  /** Called when names of tables have changed. */
  forgetNames(): void {
    this.#heads.forget();
  }

  /** The rows channels that a change in the batch may concern. Each keeps its matches until `takePending`. */
  match(batch: Batch): Set<RowsChannel<Cursor>> {
    const touched = new Set<RowsChannel<Cursor>>();
    if (this.#indexes.size === 0) return touched;
    const reader = new BatchReader(batch);
    while (reader.next()) {
      const index = this.#indexes.get(reader.relation);
      if (index && !isBreak(reader.action)) index.match(new Change(reader), touched);
    }
    return touched;
  }
}
