/**
 * Finds the channels of one table that a change can concern. If a channel's filter requires certain
 * values of a column, the channel is found by these values. Every other channel judges each change.
 * So the cost of a change does not grow with channels that require other values.
 */
import { actions } from '#shared/log/batch.ts';
import type { Table } from '../catalog/catalog.ts';
import { type FilterColumn, ImageError, rowKey } from '../filter/row-filter.ts';
import type { Change } from './change.ts';
import type { Member } from './channel.ts';
import type { RowsChannel } from './rows-channel.ts';

export class TableIndex<M extends Member = Member> {
  readonly table: Table;
  readonly #all = new Set<RowsChannel<M>>();
  readonly #unindexed = new Set<RowsChannel<M>>();
  readonly #byValue = new Map<string, { column: FilterColumn; channels: Map<string, Set<RowsChannel<M>>> }>();

  constructor(table: Table) {
    this.table = table;
  }

  get channels(): ReadonlySet<RowsChannel<M>> {
    return this.#all;
  }

  get size(): number {
    return this.#all.size;
  }

  add(channel: RowsChannel<M>): void {
    this.#all.add(channel);
    const equality = channel.query.filter?.equality;
    if (!equality) {
      this.#unindexed.add(channel);
      return;
    }
    const { column, values } = equality;
    const { channels } = getOrMake(this.#byValue, column.name, () => ({ column, channels: new Map() }));
    for (const value of values) getOrMake(channels, value, () => new Set<RowsChannel<M>>()).add(channel);
  }

  remove(channel: RowsChannel<M>): void {
    this.#all.delete(channel);
    this.#unindexed.delete(channel);
    const equality = channel.query.filter?.equality;
    const entry = equality && this.#byValue.get(equality.column.name);
    if (!equality || !entry) return;
    for (const value of equality.values) {
      const channels = entry.channels.get(value);
      channels?.delete(channel);
      if (channels?.size === 0) entry.channels.delete(value);
    }
    if (entry.channels.size === 0) this.#byValue.delete(equality.column.name);
  }

  /**
   * Adds the change to the pending matches of each channel that it concerns, and adds these
   * channels to `touched`. A channel that cannot judge the change is marked undecodable, and added
   * to `touched` too.
   */
  match(change: Change, touched: Set<RowsChannel<M>>): void {
    if (change.action === actions.truncate) {
      for (const channel of this.#all) this.#try(channel, change, touched);
      return;
    }
    for (const channel of this.#unindexed) this.#try(channel, change, touched);
    if (this.#byValue.size === 0) return;
    for (const { column, channels } of this.#byValue.values()) {
      let key: string | null;
      let oldKey: string | null;
      try {
        const { newRow, oldRow } = change;
        key = newRow && rowKey(newRow, column);
        oldKey = oldRow && rowKey(oldRow, column);
      } catch (error) {
        for (const some of channels.values()) for (const channel of some) giveUp(channel, error, touched);
        continue;
      }
      if (key !== null) for (const channel of channels.get(key) ?? []) this.#try(channel, change, touched);
      if (oldKey === null || oldKey === key) continue;
      for (const channel of channels.get(oldKey) ?? []) {
        // a filter can require one of several values: the new value may have found this channel already
        if (channel.pending.at(-1)?.change !== change) this.#try(channel, change, touched);
      }
    }
  }

  #try(channel: RowsChannel<M>, change: Change, touched: Set<RowsChannel<M>>): void {
    if (channel.live.length === 0 || channel.undecodable) return;
    try {
      const effect = channel.effectOf(change);
      if (!effect) return;
      channel.pending.push({ change, effect });
      touched.add(channel);
    } catch (error) {
      giveUp(channel, error, touched);
    }
  }
}

function giveUp<M extends Member>(channel: RowsChannel<M>, error: unknown, touched: Set<RowsChannel<M>>): void {
  if (!(error instanceof ImageError)) throw error;
  channel.undecodable = error.why;
  touched.add(channel);
}

function getOrMake<K, V>(map: Map<K, V>, key: K, make: () => V): V {
  let value = map.get(key);
  if (value === undefined) {
    value = make();
    map.set(key, value);
  }
  return value;
}
