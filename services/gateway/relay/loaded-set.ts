/**
 * The values of one set of a policy, at a position of this gateway. The values never change. When the log brings a
 * change that can change them, the set becomes invalid, and the code that needs the values loads a new LoadedSet.
 *
 *   loading   the values are being read
 *   waiting   the values were read from a snapshot that is ahead of this gateway
 *   valid     the values are those at this gateway's position
 *   invalid   the set is of no use any more, and stays invalid
 */
import { actions, isBreak } from '#shared/log/batch.ts';
import type { AlreadySeen } from '../channels/already-seen.ts';
import type { Change } from '../channels/change.ts';
import { ImageError, type RowFilter, rowKey, type Source, type Values } from '../filter/row-filter.ts';

/** A table that the values are made of. */
export interface Part {
  relation: number;
  /** the rows of the table that can contribute to the values; null: all */
  filter: RowFilter | null;
  /** has the column whose values are in the set */
  source: Source;
}

/** The position of a snapshot in the log: the snapshot contains the changes up to `seq`, and those in `alreadySeen`. */
export interface SetSnapshot {
  seq: number;
  alreadySeen: AlreadySeen;
}

export class LoadedSet {
  readonly source: Source;
  /** the tables that the values are made of: the source's table, and the tables of the inner sets */
  readonly parts: readonly Part[];
  readonly #own: readonly Part[];
  readonly #inner: readonly Part[];
  state: 'loading' | 'waiting' | 'valid' | 'invalid' = 'loading';
  values: Values | null = null;
  /** the seq of this gateway when the set became valid */
  since = 0;
  /** functions that are called once, when the set becomes invalid */
  readonly holders = new Set<() => void>();
  /** when the last holder left, on the clock of performance.now() */
  unusedSince = Number.POSITIVE_INFINITY;
  #snapshot: SetSnapshot | null = null;
  /** changes that this gateway received while the values were being read, and that can change the values */
  #passed: { seq: number; xid: bigint }[] = [];

  constructor(source: Source, inner: readonly LoadedSet[]) {
    this.source = source;
    const filter = source.where.withValues(({ key }) => inner.find((set) => set.source.key === key)!.values!);
    this.#own = [{ relation: source.table.id, filter: filter.isEmpty ? null : filter, source }];
    this.#inner = inner.flatMap(({ parts }) => parts);
    this.parts = [...this.#own, ...this.#inner];
  }

  /**
   * Sets the values, which were read from this snapshot. Returns false if the values have changed since, or if the set
   * became invalid: then the set must not be used.
   */
  read(values: Values, snapshot: SetSnapshot): boolean {
    this.values = values;
    this.#snapshot = snapshot;
    const isOld = this.#passed.some(({ seq, xid }) => seq > snapshot.seq && !snapshot.alreadySeen.saw(xid));
    this.#passed = [];
    if (this.state !== 'loading' || isOld) return false;
    this.state = 'waiting';
    return true;
  }

  /** Counts a change of any table. Called for each change in order, while the set waits. */
  count(seq: number, xid: bigint): void {
    if (seq > this.#snapshot!.seq) this.#snapshot!.alreadySeen.drops(xid);
  }

  /** Makes a waiting set valid if this gateway has passed the snapshot. `seq`: this gateway's position. */
  settle(seq: number): void {
    if (this.state !== 'waiting' || seq < this.#snapshot!.seq || !this.#snapshot!.alreadySeen.done) return;
    this.state = 'valid';
    this.since = seq;
  }

  /**
   * Whether the change makes the values wrong. While the set is loading, this is not decided yet: then the set notes
   * the change for `read`, and the result is false.
   */
  isChangedBy(change: Change): boolean {
    if (this.state === 'invalid') return false;
    // the filter contains the values that the inner sets had at first, so any change of an inner set counts
    if (canChange(this.#inner, change)) return true;
    if (!canChange(this.#own, change)) return false;
    if (this.state === 'valid') return true;
    if (this.state === 'loading') {
      this.#passed.push({ seq: change.seq, xid: change.xid });
      return false;
    }
    return change.seq > this.#snapshot!.seq && !this.#snapshot!.alreadySeen.saw(change.xid);
  }

  invalidate(): void {
    this.state = 'invalid';
    for (const tell of this.holders) tell();
    this.holders.clear();
  }
}

/** Whether the change can change a set that is made of these tables. */
export function canChange(parts: readonly Part[], change: Change): boolean {
  return parts.some(({ relation, filter, source }) => {
    if (relation !== change.relation) return false;
    if (isBreak(change.action)) return change.action !== actions.access;
    if (change.action === actions.truncate) return true;
    try {
      const { oldRow, newRow } = change;
      const before = oldRow !== null && (filter === null || filter.admits(oldRow));
      const after = newRow !== null && (filter === null || filter.admits(newRow));
      if (!before || !after) return before || after;
      return rowKey(oldRow, source.column) !== rowKey(newRow, source.column);
    } catch (error) {
      if (!(error instanceof ImageError)) throw error;
      return true;
    }
  });
}
