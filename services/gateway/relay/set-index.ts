/**
 * Finds the sets (sets.ts) that a change of a table can change. If all rows of a set must have one of some values in
 * a column, the index finds the set by these values. So the cost of a change does not grow with the number of users
 * whose sets are made of other rows.
 */
import { actions, isBreak } from '#shared/log/batch.ts';
import type { Change } from '../channels/change.ts';
import { getOrMake } from '../channels/table-index.ts';
import { type FilterColumn, ImageError, rowKey } from '../filter/row-filter.ts';
import type { LoadedSet } from './loaded-set.ts';

/** The sets that are made of one table. */
interface OfTable {
  all: Set<LoadedSet>;
  /** sets that cannot be found by values */
  others: Set<LoadedSet>;
  byColumn: Map<string, { column: FilterColumn; sets: Map<string, Set<LoadedSet>> }>;
}

export class SetIndex {
  readonly #tables = new Map<number, OfTable>();

  get isEmpty(): boolean {
    return this.#tables.size === 0;
  }

  has(relation: number): boolean {
    return this.#tables.has(relation);
  }

  add(set: LoadedSet): void {
    for (const { relation, filter } of set.parts) {
      const table = getOrMake(this.#tables, relation, () => ({
        all: new Set(),
        others: new Set(),
        byColumn: new Map(),
      }));
      table.all.add(set);
      const equality = filter?.equality;
      if (!equality) {
        table.others.add(set);
        continue;
      }
      const { column, values } = equality;
      const { sets } = getOrMake(table.byColumn, column.name, () => ({ column, sets: new Map() }));
      for (const value of values) getOrMake(sets, value, () => new Set<LoadedSet>()).add(set);
    }
  }

  remove(set: LoadedSet): void {
    for (const { relation, filter } of set.parts) {
      const table = this.#tables.get(relation);
      if (!table) continue;
      table.all.delete(set);
      table.others.delete(set);
      const equality = filter?.equality;
      const sets = equality && table.byColumn.get(equality.column.name)?.sets;
      if (sets)
        for (const value of equality.values) {
          const some = sets.get(value);
          some?.delete(set);
          if (some?.size === 0) sets.delete(value);
        }
      if (sets?.size === 0) table.byColumn.delete(equality!.column.name);
      if (table.all.size === 0) this.#tables.delete(relation);
    }
  }

  /** The sets that the change may change. Whether it does change a set, LoadedSet.isChangedBy decides. */
  concernedBy(change: Change): Iterable<LoadedSet> {
    const table = this.#tables.get(change.relation);
    if (!table) return [];
    if (isBreak(change.action) || change.action === actions.truncate) return table.all;
    const found = new Set(table.others);
    for (const { column, sets } of table.byColumn.values()) {
      try {
        for (const row of [change.oldRow, change.newRow]) {
          const key = row && rowKey(row, column);
          if (key !== null) for (const set of sets.get(key) ?? []) found.add(set);
        }
      } catch (error) {
        if (!(error instanceof ImageError)) throw error;
        for (const some of sets.values()) for (const set of some) found.add(set);
      }
    }
    return found;
  }
}
