/**
 * Reads a channel's rows as of one moment, and the position of that moment in the log. One
 * transaction reads four things: the last seq given, the snapshot, the number of changes that the
 * snapshot sees and that have no seq yet, and the rows. (These changes get a seq later and are
 * dropped then, see already-seen.ts.) When nobody waits for the rows any more, reading stops after
 * the page in progress.
 *
 *   small  a result of up to `shareCharacters`. It is read to the end in one slot, and shared by all
 *          clients that ask for it meanwhile. There are few slots.
 *   large  a larger result. It is read at its client's pace and keeps one place until its end. It
 *          takes a slot only while a page is read. There are few places.
 *
 * No slow client blocks a slot: a slot is held only while Postgres works. The results in memory and
 * the places are bounded. If others wait for room, a client that does not take its pages loses
 * them. A connection has at most two small results and one large result at once, and gets its next
 * result after it has taken the bytes that were sent. Only clients that ask for a locked table wait
 * for that table (locked-tables.ts).
 *
 * The queue of requests has no bound. It holds subscriptions of connected clients. The number of
 * clients is bounded, and a subscription takes more memory than its place in the queue. A refused
 * client would only come back, and wait behind clients that came later.
 */

import type { Pool } from '#shared/postgres/postgres.ts';
import type { GatewayMetrics } from '#shared/process/metrics.ts';
import { Backoff, sleep } from '#shared/waiting.ts';
import type { Revocations } from '../access/revocations.ts';
import { Budget, TooSlow } from '../bounds/budget.ts';
import { Limiter } from '../bounds/limiter.ts';
import type { Table } from '../catalog/catalog.ts';
import type { RowsChannel } from '../channels/rows-channel.ts';
import { isLocked, LockedTables } from './locked-tables.ts';
import type { Outlet } from './outlet.ts';
import { type Page, type SnapshotStart, SnapshotTransaction } from './snapshot-transaction.ts';

/** the number of slots: Postgres works for this many transactions at once */
export const maxAtOnce = 4;
/** the number of places: this many large results are read at once, at their clients' pace */
const maxLarge = 4;
/**
 * connections of the pool: one for each slot and each place, one for the wait for locked tables,
 * and one to ask Postgres about silent connections
 */
export const snapshotConnections = maxAtOnce + maxLarge + 2;
const shareCharacters = 4 * 1024 * 1024;
/**
 * bound on all small results that wait for their clients; a character takes one byte of memory, or
 * two in a text with characters beyond Latin-1
 */
const maxHeldCharacters = 32 * 1024 * 1024;
/** a client may take this long for a page (of 128 kB) if others wait … */
const patienceMs = 1_000;
/** … and otherwise this long: a large result keeps a transaction open, a small one only memory */
const largePageMs = 10_000;
const smallPageMs = 30_000;
/** bound on a transaction, as an open transaction keeps vacuum from removing rows deleted meanwhile */
const maxOpenMs = 10 * 60_000;
/** results of one connection at once */
const smallEach = 2;
const largeEach = 1;

/** Called with each page, and whether another page follows. The next page waits until it resolves; false: stop. */
type OnPage = (page: Page, more: boolean) => Promise<boolean>;

interface Small {
  start: SnapshotStart;
  pages: Page[];
  characters: number;
  /** clients that are taking its pages */
  holders: number;
}

/** One reading of a channel's rows, shared by all requests that wait for it. Stops when the last request is gone. */
class Reading {
  readonly table: Table;
  readonly #rows = Promise.withResolvers<Small | null>();
  readonly #abort = new AbortController();
  #wanted = 0;

  constructor(table: Table) {
    this.table = table;
    this.#rows.promise.catch(() => {});
  }

  /** null: the rows are too large to be shared, or the reading was stopped */
  get rows(): Promise<Small | null> {
    return this.#rows.promise;
  }

  /** Aborts when nobody waits any more. */
  get signal(): AbortSignal {
    return this.#abort.signal;
  }

  resolve(rows: Small | null): void {
    this.#rows.resolve(rows);
  }

  fail(error: unknown): void {
    this.#rows.reject(error);
  }

  /** Runs `work`, and meanwhile counts the caller among those who want this reading, until its signal aborts. */
  async wanted<T>(signal: AbortSignal, work: () => Promise<T>): Promise<T> {
    const leave = () => {
      if (--this.#wanted === 0) this.#abort.abort();
    };
    this.#wanted++;
    signal.addEventListener('abort', leave, { once: true });
    try {
      return await work();
    } finally {
      signal.removeEventListener('abort', leave);
      if (!signal.aborted) this.#wanted--;
    }
  }
}

/** The limits of one connection. */
interface Lane {
  readonly small: Limiter;
  readonly large: Limiter;
  users: number;
}

export class Snapshots {
  readonly #pool: Pool;
  readonly #revocations: Revocations | null;
  readonly #metrics: GatewayMetrics;
  readonly #locked: LockedTables;
  /** readings in progress, by RowQuery.digest: a channel keeps its name when the rights of its client change */
  readonly #shared = new Map<string, Reading>();
  readonly #slots = new Limiter(maxAtOnce);
  readonly #places = new Budget(maxLarge, patienceMs);
  readonly #held = new Budget(maxHeldCharacters, patienceMs);
  readonly #lanes = new Map<Outlet, Lane>();
  /** channels whose last result was large */
  readonly #large = new WeakSet<RowsChannel>();
  /** requests that wait until their rows are read */
  #waiting = 0;

  /** @param revocations null: AUTH=off */
  constructor(pool: Pool, revocations: Revocations | null, metrics: GatewayMetrics) {
    this.#pool = pool;
    this.#revocations = revocations;
    this.#metrics = metrics;
    this.#locked = new LockedTables(pool);
    metrics.snapshotsWaiting.onScrape(() => metrics.snapshotsWaiting.set(this.#waiting));
  }

  /**
   * Reads a channel's rows for a client. Resolves with the position in the log at which the rows
   * were read; null: `onPage` or the signal stopped the reading. Rejects if Postgres fails or does
   * not answer, with Altered if the table was altered, and with TooSlow.
   */
  async read(outlet: Outlet, channel: RowsChannel, signal: AbortSignal, onPage: OnPage): Promise<SnapshotStart | null> {
    const lane = this.#lane(outlet);
    const backoff = new Backoff(10, 1_000);
    let hasBegun = false;
    const deliver: OnPage = (page, more) => {
      hasBegun = true;
      return onPage(page, more);
    };
    let isWaiting = false;
    const setWaiting = (value: boolean) => {
      if (value !== isWaiting) this.#waiting += value ? 1 : -1;
      isWaiting = value;
    };
    const onBegin = () => setWaiting(false);
    try {
      while (!signal.aborted) {
        setWaiting(true);
        try {
          if (!this.#large.has(channel)) {
            const small = await lane.small.run(
              () => this.#readSmall(outlet, channel, signal, deliver, onBegin),
              signal,
            );
            if (small !== 'large') return small;
            this.#large.add(channel);
            setWaiting(true);
          }
          return await lane.large.run(() => this.#readLarge(outlet, channel, signal, deliver, onBegin), signal);
        } catch (error) {
          if (signal.aborted) return null;
          // the client may have part of the rows: the caller of `read` must tell the client to start again
          if (hasBegun || !isLocked(error)) throw error;
        }
        setWaiting(true);
        await this.#locked.free(channel.table, signal);
        // the wait above ends at once if the lock is not on this table, but on something else that the query reads
        await sleep(backoff.next(), signal);
      }
      return null;
    } finally {
      setWaiting(false);
      if (--lane.users === 0) this.#lanes.delete(outlet);
    }
  }

  #lane(outlet: Outlet): Lane {
    let lane = this.#lanes.get(outlet);
    if (!lane) {
      lane = { small: new Limiter(smallEach), large: new Limiter(largeEach), users: 0 };
      this.#lanes.set(outlet, lane);
    }
    lane.users++;
    return lane;
  }

  async #readSmall(
    outlet: Outlet,
    channel: RowsChannel,
    signal: AbortSignal,
    onPage: OnPage,
    onBegin: () => void,
  ): Promise<SnapshotStart | null | 'large'> {
    // a client that has not taken the bytes already sent gets no new rows
    await outlet.drained();
    if (signal.aborted) return null;
    const running = this.#running(channel);
    if (running) {
      const small = await running.wanted(signal, () => running.rows);
      onBegin();
      if (small) return await this.#deliver(small, onPage);
      return signal.aborted ? null : 'large';
    }
    const reading = new Reading(channel.table);
    const { digest } = channel.query;
    this.#shared.set(digest, reading);
    // Once the rows are read, later requests read again. These clients may take long, and meanwhile the log after
    // this snapshot may be purged.
    const publish = (small: Small | null) => {
      reading.resolve(small);
      if (this.#shared.get(digest) === reading) this.#shared.delete(digest);
    };
    let small: Small | null = null;
    try {
      small = await reading.wanted(signal, () => this.#collect(channel, reading.signal, onBegin));
      publish(small);
      if (small) return await this.#deliver(small, onPage);
      return signal.aborted ? null : 'large';
    } catch (error) {
      if (reading.signal.aborted) return null;
      reading.fail(error);
      throw error;
    } finally {
      publish(null);
      if (small) this.#release(small);
    }
  }

  /**
   * A reading that can be joined. A reading that began before the table was altered cannot be
   * joined: its rows have the former shape.
   */
  #running({ query, table }: RowsChannel): Reading | undefined {
    const reading = this.#shared.get(query.digest);
    return reading?.table === table && !reading.signal.aborted ? reading : undefined;
  }

  /** Null: the rows are too large, or the reading was stopped. The caller must release the result. */
  async #collect(channel: RowsChannel, signal: AbortSignal, onBegin: () => void): Promise<Small | null> {
    const collect = (mayKeep: () => boolean) =>
      this.#slots.run(() => {
        onBegin();
        return this.#readAll(channel, signal, mayKeep);
      }, signal);
    const first = await collect(() => this.#held.hasRoom);
    if (first !== 'full') return first;
    await this.#held.enter(shareCharacters, signal);
    try {
      return (await collect(() => true)) as Small | null;
    } finally {
      this.#held.free(shareCharacters);
    }
  }

  /**
   * Reads a result to its end. A result of one page needs no room, as it is delivered and freed at
   * once. Resolves with 'full' if a larger result finds no room; null: too large, or stopped.
   */
  async #readAll(channel: RowsChannel, signal: AbortSignal, mayKeep: () => boolean): Promise<Small | null | 'full'> {
    const transaction = await this.#begin(channel);
    try {
      const small: Small = { start: transaction.start, pages: [], characters: 0, holders: 0 };
      while (!signal.aborted) {
        const { text, more } = await transaction.page();
        small.pages.push(text);
        small.characters += text.length;
        if (small.characters > shareCharacters) return null;
        if (small.pages.length > 1 && !mayKeep()) return 'full';
        if (more) continue;
        this.#hold(small);
        return small;
      }
      return null;
    } finally {
      await transaction.end();
    }
  }

  #hold(small: Small): void {
    if (small.holders++ === 0) this.#held.take(small.characters);
  }

  #release(small: Small): void {
    if (--small.holders === 0) this.#held.free(small.characters);
  }

  async #begin(channel: RowsChannel): Promise<SnapshotTransaction> {
    try {
      const transaction = await SnapshotTransaction.begin(this.#pool, channel, this.#revocations);
      this.#metrics.snapshots.inc();
      return transaction;
    } catch (error) {
      // an attempt that found the table locked does not count as a snapshot
      if (!isLocked(error)) this.#metrics.snapshots.inc();
      throw error;
    }
  }

  async #deliver(small: Small, onPage: OnPage): Promise<SnapshotStart | null> {
    const { pages, start } = small;
    this.#hold(small);
    try {
      for (const [i, page] of pages.entries())
        if (!(await this.#held.taken(onPage(page, i < pages.length - 1), small, smallPageMs))) return null;
      return start;
    } finally {
      this.#release(small);
    }
  }

  async #readLarge(
    outlet: Outlet,
    channel: RowsChannel,
    signal: AbortSignal,
    onPage: OnPage,
    onBegin: () => void,
  ): Promise<SnapshotStart | null> {
    await outlet.drained();
    await this.#places.enter(1, signal);
    let transaction: SnapshotTransaction | undefined;
    try {
      transaction = await this.#slots.run(() => this.#begin(channel), signal);
      onBegin();
      const { page: nextPage, start } = transaction;
      const openedAt = performance.now();
      let characters = 0;
      for (;;) {
        const { text, more } = await this.#slots.run(nextPage, signal);
        characters += text.length;
        const taken = await this.#places.taken(onPage(text, more), transaction, largePageMs);
        if (!taken || signal.aborted) return null;
        if (!more) {
          if (characters <= shareCharacters) this.#large.delete(channel);
          return start;
        }
        if (performance.now() - openedAt > maxOpenMs) throw new TooSlow(`it took more than ${maxOpenMs} ms`);
      }
    } finally {
      await transaction?.end();
      this.#places.free(1);
    }
  }
}
