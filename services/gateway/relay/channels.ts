/**
 * The channels that clients follow. A channel is made for its first cursor, shared by all cursors
 * with the same request, and removed with its last cursor.
 */
import { type Batch, BatchReader, isBreak } from '#shared/log/batch.ts';
import type { Catalog } from '../catalog/catalog.ts';
import { Change } from '../channels/change.ts';
import type { Channel } from '../channels/channel.ts';
import type { Framing } from '../channels/framing.ts';
import type { JudgedChannel } from '../channels/judged-channel.ts';
import type { Ring } from '../channels/ring.ts';
import type { RowQuery } from '../channels/row-query.ts';
import { channelKey, RowsChannel } from '../channels/rows-channel.ts';
import { FrameHeads } from '../channels/table-frames.ts';
import { TableIndex } from '../channels/table-index.ts';
import { type TableSet, TablesChannel, tablesKey } from '../channels/tables-channel.ts';
import { ViewsChannel, viewsKey } from '../channels/views-channel.ts';
import type { Cursor } from './cursor.ts';

export class Channels {
  readonly #catalog: Catalog;
  readonly #ring: Ring;
  readonly #heads: FrameHeads;
  readonly #tables = new Map<string, TablesChannel<Cursor>>();
  readonly #rows = new Map<string, RowsChannel<Cursor>>();
  readonly #views = new Map<string, ViewsChannel<Cursor>>();
  /** by Table.id; only of tables with a view */
  readonly #indexes = new Map<number, TableIndex<JudgedChannel<Cursor>>>();

  constructor(catalog: Catalog, ring: Ring) {
    this.#catalog = catalog;
    this.#ring = ring;
    this.#heads = new FrameHeads((relation) => catalog.byId(relation)?.name);
  }

  *[Symbol.iterator](): Iterator<Channel<Cursor>> {
    yield* this.#tables.values();
    yield* this.#views.values();
    yield* this.#rows.values();
  }

  /** Plain mode's channels without rights. */
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
      channel = new RowsChannel(query, { ring: this.#ring, framing });
      this.#rows.set(key, channel);
      this.#index(channel);
    }
    return channel;
  }

  /** Plain mode's channel for the tables that a viewer may read, one query for each. */
  forViews(queries: readonly RowQuery[]): ViewsChannel<Cursor> {
    const key = viewsKey(queries);
    let channel = this.#views.get(key);
    if (!channel || !queries.every(({ table }) => channel?.viewOf(table.id)?.query.table === table)) {
      channel = new ViewsChannel(queries, { ring: this.#ring });
      this.#views.set(key, channel);
      this.#index(channel);
    }
    return channel;
  }

  #index(channel: JudgedChannel<Cursor>): void {
    for (const view of channel.views) {
      const { table } = view.query;
      let index = this.#indexes.get(table.id);
      if (index?.table !== table) {
        index = new TableIndex(table);
        this.#indexes.set(table.id, index);
      }
      index.add(view);
    }
  }

  /** Called when the channel has no cursor left. */
  readonly forget = (channel: Channel): void => {
    const { key } = channel;
    if (this.#tables.get(key) === channel) this.#tables.delete(key);
    for (const judged of [this.#rows, this.#views] as const) {
      const found = judged.get(key);
      // a channel that was replaced after its table was altered is in no index any more
      if (!found || found !== channel) continue;
      judged.delete(key);
      for (const view of found.views) {
        const { id } = view.query.table;
        const index = this.#indexes.get(id);
        index?.remove(view);
        if (index?.size === 0) this.#indexes.delete(id);
      }
    }
  };

  /** All cursors, as a new list: a cursor that begins again may move to another channel while the caller iterates. */
  cursors(): Cursor[] {
    return [...this].flatMap(({ members }) => [...members]);
  }

  /**
   * The cursors of channels about one of these tables, by Table.id. All those of views are among them: a client of
   * plain mode may follow every table that it may read, also one that it could not read until now.
   */
  cursorsOf(tables: ReadonlySet<number>): Cursor[] {
    const concerned = [...this.#views.values()].flatMap(({ members }) => [...members]);
    for (const { table, members } of this.#rows.values()) if (tables.has(table.id)) concerned.push(...members);
    return concerned;
  }

  /** The live cursors of channels about a table, by Table.id. */
  liveCursorsOf(relation: number): Cursor[] {
    return [...(this.#indexes.get(relation)?.views ?? [])].flatMap(({ channel }) => channel.live);
  }

  /** Called when names of tables have changed. */
  forgetNames(): void {
    this.#heads.forget();
  }

  /** The channels that a change in the batch may concern. Each keeps its matches until `takePending`. */
  match(batch: Batch): Set<JudgedChannel<Cursor>> {
    const touched = new Set<JudgedChannel<Cursor>>();
    if (this.#indexes.size === 0) return touched;
    const reader = new BatchReader(batch);
    while (reader.next()) {
      const index = this.#indexes.get(reader.relation);
      if (index && !isBreak(reader.action)) index.match(new Change(reader), touched);
    }
    return touched;
  }
}
