/**
 * Keeps the sets that policies compare rows with: the values of a column of another table ($from). Clients with the
 * same claims share their sets. What must stay true:
 * - A valid set has the values at this gateway's position. If a transaction changes the set, the set becomes invalid
 *   before any change of the transaction is delivered. So the whole transaction reaches clients under the new set.
 * - A set becomes valid only between two transactions, so that no client gets half a transaction under the set.
 * - The feed holds back a transaction whose end has not arrived (unfinished.ts). A transaction that is too large to be
 *   held back makes all valid sets invalid, because its end may change any of them.
 */
import { type Batch, BatchReader, splitBefore } from '#shared/log/batch.ts';
import type { GatewayMetrics } from '#shared/process/metrics.ts';
import { Backoff, sleep } from '#shared/waiting.ts';
import { Change } from '../channels/change.ts';
import type { RowFilter, Source } from '../filter/row-filter.ts';
import { canChange, LoadedSet } from './loaded-set.ts';
import { SetIndex } from './set-index.ts';
import type { SetLoader } from './set-loader.ts';

/** a client waits at most this long for its sets */
const resolveMs = 5_000;
/** a set is kept for this long after its last client left, because clients often return soon */
const keptMs = 30_000;
const sweepMs = 5_000;

/** Used by a cursor that reads older changes, to check whether the sets had the same values then (set-search.ts). */
export interface SetGuard {
  /** the sets have not changed since this seq */
  readonly since: number;
  /** Whether a change in the batch, with a seq above `after`, can have changed one of the sets. */
  isChangedIn(batch: Batch, after: number): boolean;
}

export interface ResolvedSets {
  /** the filter with its sets filled in */
  filter: RowFilter;
  guard: SetGuard | null;
  release: () => void;
}

interface SetsOptions {
  loader: SetLoader;
  /** this gateway's seq */
  seq: () => number;
  /** an array with the batch that contains the seq; undefined: the batch is not in memory */
  recent: (seq: number) => Batch[] | undefined;
  metrics: GatewayMetrics;
}

/** The set was changed while it was loaded. */
class Changed extends Error {
  override readonly name = 'Changed';
}

export class Sets {
  readonly #options: SetsOptions;
  readonly #byKey = new Map<
    string,
    { set: LoadedSet; ready: Promise<void>; wake: () => void; fail: (error: unknown) => void }
  >();
  readonly #index = new SetIndex();
  /** sets whose snapshot is ahead of this gateway: they wait until this gateway has passed the snapshot */
  readonly #waiting = new Set<LoadedSet>();
  #validCount = 0;
  /** `parts` judged changes that are not delivered yet; a set that became valid now would miss these changes */
  #isPassing = false;
  #timer: NodeJS.Timeout | undefined;

  constructor(options: SetsOptions) {
    this.#options = options;
    const { metrics } = options;
    metrics.accessSets.onScrape(() => metrics.accessSets.set(this.#byKey.size));
  }

  start(): void {
    this.#timer ??= setInterval(() => this.#sweep(), sweepMs);
  }

  stop(): void {
    clearInterval(this.#timer);
    this.#timer = undefined;
  }

  /**
   * Resolves with a filter whose sets have the values at this gateway's position. Calls `onInvalid` once, when the
   * first of these sets becomes invalid, unless `release` was called before. Rejects if the sets cannot be loaded
   * within 5 s.
   */
  async resolve(filter: RowFilter, onInvalid: () => void): Promise<ResolvedSets> {
    if (filter.sources.length === 0) return { filter, guard: null, release: () => {} };
    const deadline = performance.now() + resolveMs;
    let sets = await this.#allOf(filter.sources, deadline);
    // other work may have run between the check in `#allOf` and this line, and may have made a set invalid
    while (!areValid(sets)) sets = await this.#allOf(filter.sources, deadline);
    let isHeld = true;
    const tell = () => {
      if (isHeld) onInvalid();
      isHeld = false;
    };
    for (const set of sets) {
      set.holders.add(tell);
      set.unusedSince = Number.POSITIVE_INFINITY;
    }
    return {
      filter: filter.withValues(({ key }) => sets.find(({ source }) => source.key === key)!.values!),
      guard: guardOf(sets),
      release: () => {
        isHeld = false;
        for (const set of sets) {
          set.holders.delete(tell);
          if (set.holders.size === 0) set.unusedSince = performance.now();
        }
      },
    };
  }

  /** Resolves with a valid set for each source. A set may become invalid again before the awaiting code runs. */
  async #allOf(sources: readonly Source[], deadline: number): Promise<LoadedSet[]> {
    const backoff = new Backoff(5, 200);
    for (;;) {
      try {
        const sets = await Promise.all(sources.map((source) => this.#get(source, deadline)));
        if (areValid(sets)) return sets;
      } catch (error) {
        if (!(error instanceof Changed)) throw error;
      }
      // a set that changes all the time is not valid for long enough
      if (performance.now() > deadline) throw new Error('a set changes too often to be loaded');
      await sleep(backoff.next());
    }
  }

  async #get(source: Source, deadline: number): Promise<LoadedSet> {
    const known = this.#byKey.get(source.key);
    // if the version of the table differs, its columns may have other types
    if (known && known.set.source.table.version === source.table.version) {
      await within(known.ready, deadline);
      return known.set;
    }
    const inner = source.where.sources.length === 0 ? [] : await this.#allOf(source.where.sources, deadline);
    // other work may have run during the wait, and may have made an inner set invalid
    if (this.#isPassing || !areValid(inner)) throw new Changed('a set that this one depends on may have changed');
    const other = this.#byKey.get(source.key);
    if (other && other !== known) return this.#get(source, deadline);
    if (other) this.#invalidate(other.set);
    const set = new LoadedSet(source, inner);
    const { promise: ready, resolve: wake, reject: fail } = Promise.withResolvers<void>();
    ready.catch(() => {});
    this.#byKey.set(source.key, { set, ready, wake, fail });
    this.#index.add(set);
    void this.#load(set);
    await within(ready, deadline);
    return set;
  }

  async #load(set: LoadedSet): Promise<void> {
    const { loader, metrics } = this.#options;
    metrics.accessSetLoads.inc();
    try {
      const { values, snapshot } = await loader.load(set);
      if (set.state === 'invalid') return;
      if (!set.read(values, snapshot) || !this.#replay(set, snapshot.seq)) return this.#invalidate(set);
      this.#waiting.add(set);
      if (!this.#isPassing && this.#isBetweenTransactions()) this.#settle();
    } catch (error) {
      this.#forget(set)?.fail(error);
      set.invalidate();
    }
  }

  /** Counts for the set the changes after the seq `after` up to now. False: some of them are not in memory any more. */
  #replay(set: LoadedSet, after: number): boolean {
    const { seq, recent } = this.#options;
    for (let at = after; at < seq(); ) {
      const [batch] = recent(at + 1) ?? [];
      if (!batch) return false;
      const reader = new BatchReader(batch);
      while (reader.next()) if (reader.seq > at) set.count(reader.seq, BigInt(reader.xid));
      at = batch.lastSeq;
    }
    return true;
  }

  /**
   * Whether this gateway's position is the end of a transaction. A gateway starts at the end of a transaction, and has
   * no batch in memory then.
   */
  #isBetweenTransactions(): boolean {
    const [batch] = this.#options.recent(this.#options.seq()) ?? [];
    if (!batch) return true;
    const reader = new BatchReader(batch);
    while (reader.next());
    return reader.last;
  }

  #settle(): void {
    for (const set of this.#waiting) {
      set.settle(this.#options.seq());
      if (set.state === 'waiting') continue;
      this.#waiting.delete(set);
      if (set.state === 'valid') {
        this.#validCount++;
        set.unusedSince = performance.now();
        this.#byKey.get(set.source.key)?.wake();
      }
    }
  }

  /** Whether a set is valid or waits. If so, the feed must hold back a transaction whose end has not arrived. */
  get areUsed(): boolean {
    return this.#validCount + this.#waiting.size > 0;
  }

  /**
   * Splits consecutive batches into parts, which the caller delivers one after the other. Before the generator yields
   * a part, it makes the sets invalid that the first transaction of the part changes. Call `delivered` after each
   * part.
   */
  *parts(batches: readonly Batch[]): Generator<Batch> {
    if (this.#index.isEmpty) {
      yield* batches;
      return;
    }
    const changed = this.#changedIn(batches);
    const starts = [...changed.keys()];
    this.#isPassing = true;
    try {
      for (const batch of batches) {
        const within = starts.filter((seq) => batch.firstSeq <= seq && seq <= batch.lastSeq);
        for (const part of within.length === 0 ? [batch] : splitBefore(batch, within)) {
          for (const set of changed.get(part.firstSeq) ?? []) this.#invalidate(set);
          yield part;
        }
      }
    } finally {
      this.#isPassing = false;
      if (this.#waiting.size > 0 && this.#isBetweenTransactions()) this.#settle();
    }
  }

  /** Counts the changes of a part that was delivered, for the sets that wait. */
  delivered(part: Batch): void {
    if (this.#waiting.size === 0) return;
    const reader = new BatchReader(part);
    while (reader.next()) for (const set of this.#waiting) set.count(reader.seq, BigInt(reader.xid));
  }

  /** For a gateway that changed to another history: no set has the values at its position any more. */
  invalidateAll(): void {
    for (const { set } of this.#byKey.values()) this.#invalidate(set);
  }

  /**
   * For a log that goes on in another epoch after this gateway's position. Valid sets stay valid. The snapshot of any
   * other set may be ahead of the position, and may contain changes that the log lost, so the other sets become
   * invalid.
   */
  forked(): void {
    for (const { set } of this.#byKey.values()) if (set.state !== 'valid') this.#invalidate(set);
  }

  /** The sets that transactions in the batches change, by the first seq of the transaction. */
  #changedIn(batches: readonly Batch[]): Map<number, Set<LoadedSet>> {
    const changed = new Map<number, Set<LoadedSet>>();
    const note = (start: number, set: LoadedSet) => {
      const some = changed.get(start);
      if (some) some.add(set);
      else changed.set(start, new Set([set]));
    };
    let start = 0;
    let isEnd = true;
    for (const batch of batches) {
      const reader = new BatchReader(batch);
      while (reader.next()) {
        if (isEnd) start = reader.seq;
        isEnd = reader.last;
        if (!this.#index.has(reader.relation)) continue;
        const change = new Change(reader);
        for (const set of this.#index.concernedBy(change)) if (set.isChangedBy(change)) note(start, set);
      }
    }
    // the last transaction is too large to be held back until its end, and its end may change any set
    if (!isEnd) for (const { set } of this.#byKey.values()) if (set.state === 'valid') note(start, set);
    return changed;
  }

  #invalidate(set: LoadedSet): void {
    if (set.state === 'invalid') return;
    this.#options.metrics.accessSetInvalidations.inc();
    const entry = this.#forget(set);
    set.invalidate();
    entry?.fail(new Changed('the set changed while it was loaded'));
  }

  #forget(set: LoadedSet) {
    const entry = this.#byKey.get(set.source.key);
    this.#index.remove(set);
    this.#waiting.delete(set);
    if (entry?.set !== set) return undefined;
    if (set.state === 'valid') this.#validCount--;
    this.#byKey.delete(set.source.key);
    return entry;
  }

  #sweep(): void {
    const before = performance.now() - keptMs;
    for (const { set } of this.#byKey.values())
      if (set.state === 'valid' && set.holders.size === 0 && set.unusedSince < before) this.#forget(set);
  }
}

function guardOf(sets: readonly LoadedSet[]): SetGuard {
  const parts = sets.flatMap((set) => set.parts);
  const relations = new Set(parts.map(({ relation }) => relation));
  return {
    since: Math.max(...sets.map(({ since }) => since)),
    isChangedIn(batch, after) {
      const reader = new BatchReader(batch);
      while (reader.next())
        if (reader.seq > after && relations.has(reader.relation) && canChange(parts, new Change(reader))) return true;
      return false;
    },
  };
}

const areValid = (sets: readonly LoadedSet[]) => sets.every(({ state }) => state === 'valid');

/** Rejects at the deadline, on the clock of performance.now(). */
async function within(ready: Promise<void>, deadline: number): Promise<void> {
  let timer: NodeJS.Timeout | undefined;
  try {
    await Promise.race([
      ready,
      new Promise<never>((_, reject) => {
        timer = setTimeout(() => reject(new Error('a set could not be loaded in time')), deadline - performance.now());
      }),
    ]);
  } finally {
    clearTimeout(timer);
  }
}
