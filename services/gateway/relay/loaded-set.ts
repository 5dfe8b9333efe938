/**
 * The values of one set, as of a position of this gateway. A set does not change: when the log brings a change that
 * can change the values, the set becomes invalid, and whoever needs the values loads another one.
 *
 *   loading   the values are being read
 *   waiting   the values were read from a snapshot that is ahead of this gateway
 *   valid     the values are those at this gateway's position
 *   invalid   for ever
 */
import { actions, isBreak } from '#shared/log/batch.ts';
import type { AlreadySeen } from '../channels/already-seen.ts';
import type { Change } from '../channels/change.ts';
import { ImageError, type RowFilter, rowKey, type Source, type Values } from '../filter/row-filter.ts';

/** A table that the values are made of. */
export interface Part {
  relation: number;
  /** which rows matter; null: all */
  filter: RowFilter | null;
  /** the column whose values are in the set */
  source: Source;
}

/** What a snapshot says of the log: see AlreadySeen. */
export interface SetSnapshot {
  seq: number;
  alreadySeen: AlreadySeen;
}

export class LoadedSet {
  readonly source: Source;
  /** the tables that the values are made of: that of the source, and those of the sets that it depends on */
  readonly parts: readonly Part[];
  readonly #own: readonly Part[];
  readonly #inner: readonly Part[];
  state: 'loading' | 'waiting' | 'valid' | 'invalid' = 'loading';
  values: Values | null = null;
  /** the seq of this gateway when the set became valid */
  since = 0;
  /** called once, when the set becomes invalid */
  readonly holders = new Set<() => void>();
  /** when the last holder left, on the clock of performance.now() */
  unusedSince = Number.POSITIVE_INFINITY;
  #snapshot: SetSnapshot | null = null;
  /** changes that passed while the values were being read, and can change them */
  #passed: { seq: number; xid: bigint }[] = [];

  constructor(source: Source, inner: readonly LoadedSet[]) {
    this.source = source;
    const filter = source.where.withValues(({ key }) => inner.find((set) => set.source.key === key)!.values!);
    this.#own = [{ relation: source.table.id, filter: filter.isEmpty ? null : filter, source }];
    this.#inner = inner.flatMap(({ parts }) => parts);
    this.parts = [...this.#own, ...this.#inner];
  }

  /** The values were read from this snapshot. False: they have changed since, so the set is invalid. */
  read(values: Values, snapshot: SetSnapshot): boolean {
    this.values = values;
    this.#snapshot = snapshot;
    const isOld = this.#passed.some(({ seq, xid }) => seq > snapshot.seq && !snapshot.alreadySeen.saw(xid));
    this.#passed = [];
    if (this.state !== 'loading' || isOld) return false;
    this.state = 'waiting';
    return true;
  }

  /** A change of any table passes, in order. Only for a set that waits. */
  count(seq: number, xid: bigint): void {
    if (seq > this.#snapshot!.seq) this.#snapshot!.alreadySeen.drops(xid);
  }

  /** Makes a waiting set valid, if this gateway, which stands at `seq`, has passed the snapshot. */
  settle(seq: number): void {
    if (this.state !== 'waiting' || seq < this.#snapshot!.seq || !this.#snapshot!.alreadySeen.done) return;
    this.state = 'valid';
    this.since = seq;
  }

  /** Whether the change makes the set another one. A set that is loading or waiting notes the change. */
  isChangedBy(change: Change): boolean {
    if (this.state === 'invalid') return false;
    // rows of the source are judged with the inner sets as they were at first, so these may not change at all
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
