/**
 * Finds the views of one table that a change can concern. If a view's filter requires certain values
 * of a column, the view is found by these values. Every other view judges each change. So the cost of
 * a change does not grow with views that require other values.
 */
import { actions } from '#shared/log/batch.ts';
import type { Table } from '../catalog/catalog.ts';
import { type FilterColumn, ImageError, rowKey } from '../filter/row-filter.ts';
import type { Change } from './change.ts';
import type { Judging, RowView } from './row-view.ts';

export class TableIndex<C extends Judging = Judging> {
  readonly table: Table;
  readonly #all = new Set<RowView<C>>();
  readonly #unindexed = new Set<RowView<C>>();
  readonly #byValue = new Map<string, { column: FilterColumn; views: Map<string, Set<RowView<C>>> }>();

  constructor(table: Table) {
    this.table = table;
  }

  get views(): ReadonlySet<RowView<C>> {
    return this.#all;
  }

  get size(): number {
    return this.#all.size;
  }

  add(view: RowView<C>): void {
    this.#all.add(view);
    const equality = view.query.filter?.equality;
    if (!equality) {
      this.#unindexed.add(view);
      return;
    }
    const { column, values } = equality;
    const { views } = getOrMake(this.#byValue, column.name, () => ({ column, views: new Map() }));
    for (const value of values) getOrMake(views, value, () => new Set<RowView<C>>()).add(view);
  }

  remove(view: RowView<C>): void {
    this.#all.delete(view);
    this.#unindexed.delete(view);
    const equality = view.query.filter?.equality;
    const entry = equality && this.#byValue.get(equality.column.name);
    if (!equality || !entry) return;
    for (const value of equality.values) {
      const views = entry.views.get(value);
      views?.delete(view);
      if (views?.size === 0) entry.views.delete(value);
    }
    if (entry.views.size === 0) this.#byValue.delete(equality.column.name);
  }

  /**
   * Adds the change to the pending matches of each channel that it concerns, and adds these
   * channels to `touched`. A channel that cannot judge the change is marked undecodable, and added
   * to `touched` too.
   */
  match(change: Change, touched: Set<C>): void {
    if (change.action === actions.truncate) {
      for (const view of this.#all) this.#try(view, change, touched);
      return;
    }
    for (const view of this.#unindexed) this.#try(view, change, touched);
    if (this.#byValue.size === 0) return;
    for (const { column, views } of this.#byValue.values()) {
      let key: string | null;
      let oldKey: string | null;
      try {
        const { newRow, oldRow } = change;
        key = newRow && rowKey(newRow, column);
        oldKey = oldRow && rowKey(oldRow, column);
      } catch (error) {
        for (const some of views.values()) for (const { channel } of some) giveUp(channel, error, touched);
        continue;
      }
      if (key !== null) for (const view of views.get(key) ?? []) this.#try(view, change, touched);
      if (oldKey === null || oldKey === key) continue;
      for (const view of views.get(oldKey) ?? []) {
        // a filter can require one of several values: the new value may have found this view already
        if (view.channel.pending.at(-1)?.change !== change) this.#try(view, change, touched);
      }
    }
  }

  #try(view: RowView<C>, change: Change, touched: Set<C>): void {
    const { channel } = view;
    if (channel.live.length === 0 || channel.undecodable) return;
    try {
      const effect = view.effectOf(change);
      if (!effect) return;
      channel.pending.push({ change, effect });
      touched.add(channel);
    } catch (error) {
      giveUp(channel, error, touched);
    }
  }
}

function giveUp<C extends Judging>(channel: C, error: unknown, touched: Set<C>): void {
  if (!(error instanceof ImageError)) throw error;
  channel.undecodable = error.why;
  touched.add(channel);
}

/** The value of the key, which is made if there is none. */
export function getOrMake<K, V>(map: Map<K, V>, key: K, make: () => V): V {
  let value = map.get(key);
  if (value === undefined) {
    value = make();
    map.set(key, value);
  }
  return value;
}
