/**
 * The channels of one table, found by what a change could mean to them: those whose filter asks for a value of a column, by
 * that value; the rest are asked one by one. What a change costs grows with the channels it concerns, not with all.
 */
import { actions } from '#shared/log/batch.ts';
import type { Table } from '../catalog/catalog.ts';
import { type FilterColumn, ImageError, rowKey } from '../filter/row-filter.ts';
import type { Change } from './change.ts';
import type { FilteredChannel } from './rows-channel.ts';

export class TableIndex {
  readonly table: Table;
  readonly #all = new Set<FilteredChannel>();
  readonly #unindexed = new Set<FilteredChannel>();
  readonly #byValue = new Map<string, { column: FilterColumn; channels: Map<string, Set<FilteredChannel>> }>();

  constructor(table: Table) {
    this.table = table;
  }

  get channels(): ReadonlySet<FilteredChannel> {
    return this.#all;
  }

  get size(): number {
    return this.#all.size;
  }

  add(channel: FilteredChannel): void {
    this.#all.add(channel);
    const equality = channel.words.filter?.equality;
    if (!equality) {
      this.#unindexed.add(channel);
      return;
    }
    const { column, values } = equality;
    const { channels } = getOrMake(this.#byValue, column.name, () => ({ column, channels: new Map() }));
    for (const value of values) getOrMake(channels, value, () => new Set<FilteredChannel>()).add(channel);
  }

  remove(channel: FilteredChannel): void {
    this.#all.delete(channel);
    this.#unindexed.delete(channel);
    const equality = channel.words.filter?.equality;
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
   * Adds the change to the pending matches of each channel that it concerns, and those channels to `touched`; also those that
   * cannot judge it (`torn`).
   */
  match(change: Change, touched: Set<FilteredChannel>): void {
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
        for (const some of channels.values()) for (const channel of some) tear(channel, error, touched);
        continue;
      }
      if (key !== null) for (const channel of channels.get(key) ?? []) this.#try(channel, change, touched);
      if (oldKey === null || oldKey === key) continue;
      for (const channel of channels.get(oldKey) ?? []) {
        // one that asks for several values may have been found by the new one
        if (channel.pending.at(-1)?.change !== change) this.#try(channel, change, touched);
      }
    }
  }

  #try(channel: FilteredChannel, change: Change, touched: Set<FilteredChannel>): void {
    if (channel.live.length === 0 || channel.torn) return;
    try {
      const effect = channel.effectOf(change);
      if (!effect) return;
      channel.pending.push({ change, effect });
      touched.add(channel);
    } catch (error) {
      tear(channel, error, touched);
    }
  }
}

function tear(channel: FilteredChannel, error: unknown, touched: Set<FilteredChannel>): void {
  if (!(error instanceof ImageError)) throw error;
  channel.torn = error.why;
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
