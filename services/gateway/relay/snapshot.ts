/**
 * Reads what a channel's rows are at one moment, and where in the log that moment is. In one transaction: the last seq given,
 * the snapshot, how many changes it sees that have no seq yet (they get one later and are dropped then, see skip.ts), and
 * the rows. What nobody waits for any more is not read, or no further than the page that is on its way.
 *
 *   small  a result of up to `shareCharacters` is read to the end in one of a few slots, and shared by all who ask for it meanwhile.
 *   large  a larger one is read at its client's pace, in one of a few places for that. A slot is only taken for each page.
 *
 * Nobody waits for a client: slots are held while Postgres works. Results in memory, and places, are bounded; where others wait,
 * a client that does not take its pages loses them. A connection has two small results and one large one at once, and the next
 * when it has taken what was sent. Nor does anybody wait for a locked table but those who ask for it (locked-tables.ts).
 *
 * The queue has no bound of its own: in it are subscriptions of clients that are there, whose number is bounded, and each of
 * them is larger than its place in the queue. To send one away would only have it come back, behind those who came later.
 */

import type { Pool } from '#shared/postgres/postgres.ts';
import type { GatewayMetrics } from '#shared/process/metrics.ts';
import { Backoff, sleep } from '#shared/waiting.ts';
import { Room, TooSlow } from '../bounds/budget.ts';
import { Limiter } from '../bounds/limiter.ts';
import type { Table } from '../catalog/catalog.ts';
import type { FilteredChannel } from '../channels/rows-channel.ts';
import { isLocked, LockedTables } from './locked-tables.ts';
import type { Outlet } from './outlet.ts';
import { type Page, type SnapshotStart, SnapshotTransaction } from './snapshot-transaction.ts';

/** Postgres' time: how many transactions it works for at once */
export const maxAtOnce = 4;
/** large results that are read at once, at their clients' pace */
const maxLarge = 4;
/** connections of the pool: for both, for the wait for locked tables, and for looks at connections that are silent */
export const snapshotConnections = maxAtOnce + maxLarge + 2;
const shareCharacters = 4 * 1024 * 1024;
/** of small results that wait for their clients; a character takes a byte of memory, or two where a text needs it */
const maxHeldCharacters = 32 * 1024 * 1024;
/** where others wait, a client has so long for a page (of 128 kB) … */
const patienceMs = 1_000;
/** … and else so long: a large result keeps a transaction open, a small one only memory */
const largePageMs = 10_000;
const smallPageMs = 30_000;
/** a transaction keeps vacuum from what was deleted since */
const maxOpenMs = 10 * 60_000;
/** of one connection, at once */
const smallEach = 2;
const largeEach = 1;

/** Gets each page, with whether another follows, and may take its time; resolves with false to stop. */
type OnPage = (page: Page, more: boolean) => Promise<boolean>;

interface Small {
  start: SnapshotStart;
  pages: Page[];
  characters: number;
  /** clients that are taking it */
  holders: number;
}

/** One reading of a channel's rows, and all who wait for it: it stops when the last of them has gone. */
class Reading {
  readonly table: Table;
  readonly #rows = Promise.withResolvers<Small | null>();
  readonly #abort = new AbortController();
  #wanted = 0;

  constructor(table: Table) {
    this.table = table;
    this.#rows.promise.catch(() => {});
  }

  /** null: too large to be shared, or stopped */
  get rows(): Promise<Small | null> {
    return this.#rows.promise;
  }

  /** Aborts when nobody waits any more. */
  get signal(): AbortSignal {
    return this.#abort.signal;
  }

  settle(rows: Small | null): void {
    this.#rows.resolve(rows);
  }

  fail(error: unknown): void {
    this.#rows.reject(error);
  }

  /** Waits for `work` as one who wants this, until the signal aborts. */
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

/** What a connection asks for is read in turn. */
interface Lane {
  readonly small: Limiter;
  readonly large: Limiter;
  users: number;
}

export class Snapshots {
  readonly #pool: Pool;
  readonly #metrics: GatewayMetrics;
  readonly #locked: LockedTables;
  /** by the channel's name, while being read */
  readonly #shared = new Map<string, Reading>();
  readonly #slots = new Limiter(maxAtOnce);
  readonly #places = new Room(maxLarge, patienceMs);
  readonly #held = new Room(maxHeldCharacters, patienceMs);
  readonly #lanes = new Map<Outlet, Lane>();
  /** channels whose result was large the last time */
  readonly #large = new WeakSet<FilteredChannel>();
  /** those who wait until they are read */
  #waiting = 0;

  constructor(pool: Pool, metrics: GatewayMetrics) {
    this.#pool = pool;
    this.#metrics = metrics;
    this.#locked = new LockedTables(pool);
    metrics.snapshotsWaiting.askedOf(() => metrics.snapshotsWaiting.set(this.#waiting));
  }

  /**
   * Reads a channel's rows for a client. Resolves with where the log goes on, null when stopped, by `onPage` or the signal.
   * Rejects when Postgres does not answer, and with TooSlow.
   */
  async read(
    outlet: Outlet,
    channel: FilteredChannel,
    signal: AbortSignal,
    onPage: OnPage,
  ): Promise<SnapshotStart | null> {
    const lane = this.#lane(outlet);
    const backoff = new Backoff(10, 1_000);
    let handed = false;
    const hand: OnPage = (page, more) => {
      handed = true;
      return onPage(page, more);
    };
    let waits = false;
    const waiting = (now: boolean) => {
      if (now !== waits) this.#waiting += now ? 1 : -1;
      waits = now;
    };
    try {
      while (!signal.aborted) {
        waiting(true);
        const begun = () => waiting(false);
        try {
          if (!this.#large.has(channel)) {
            const small = await lane.small.run(() => this.#readSmall(outlet, channel, signal, hand, begun), signal);
            if (small !== 'large') return small;
            this.#large.add(channel);
            waiting(true);
          }
          return await lane.large.run(() => this.#readLarge(outlet, channel, signal, hand, begun), signal);
        } catch (error) {
          if (signal.aborted) return null;
          // what was handed over is void: that is for the caller to say
          if (handed || !isLocked(error)) throw error;
        }
        waiting(true);
        await this.#locked.free(channel.words.table, signal);
        // it may be something else that is locked
        await sleep(backoff.next(), signal);
      }
      return null;
    } finally {
      waiting(false);
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
    channel: FilteredChannel,
    signal: AbortSignal,
    onPage: OnPage,
    begun: () => void,
  ): Promise<SnapshotStart | null | 'large'> {
    // for a client that has not taken what there is nothing is read
    await outlet.drained();
    if (signal.aborted) return null;
    const running = this.#running(channel);
    if (running) {
      const small = await running.wanted(signal, () => running.rows);
      begun();
      if (small) return await this.#hand(small, onPage);
      return signal.aborted ? null : 'large';
    }
    const reading = new Reading(channel.words.table);
    this.#shared.set(channel.name, reading);
    // whoever comes later reads anew, however long those who are here take: the log of that time may be forgotten by then
    const share = (small: Small | null) => {
      reading.settle(small);
      if (this.#shared.get(channel.name) === reading) this.#shared.delete(channel.name);
    };
    let small: Small | null = null;
    try {
      small = await reading.wanted(signal, () => this.#collect(channel, reading.signal, begun));
      share(small);
      if (small) return await this.#hand(small, onPage);
      return signal.aborted ? null : 'large';
    } catch (error) {
      if (reading.signal.aborted) return null;
      reading.fail(error);
      throw error;
    } finally {
      share(null);
      if (small) this.#release(small);
    }
  }

  /** What can be joined: rows of before the table was altered are no longer what is asked for. */
  #running({ name, words }: FilteredChannel): Reading | undefined {
    const reading = this.#shared.get(name);
    return reading?.table === words.table && !reading.signal.aborted ? reading : undefined;
  }

  /** Null: too large, or stopped. The caller holds the result. */
  async #collect(channel: FilteredChannel, signal: AbortSignal, begun: () => void): Promise<Small | null> {
    const collect = (mayKeep: () => boolean) =>
      this.#slots.run(() => {
        begun();
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

  /** A result of one page is handed over and gone: only larger ones need room, and end where there is none. */
  async #readAll(
    channel: FilteredChannel,
    signal: AbortSignal,
    mayKeep: () => boolean,
  ): Promise<Small | null | 'full'> {
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

  async #begin(channel: FilteredChannel): Promise<SnapshotTransaction> {
    try {
      const transaction = await SnapshotTransaction.begin(this.#pool, channel);
      this.#metrics.snapshots.inc();
      return transaction;
    } catch (error) {
      // to find a table locked is no reading
      if (!isLocked(error)) this.#metrics.snapshots.inc();
      throw error;
    }
  }

  async #hand(small: Small, onPage: OnPage): Promise<SnapshotStart | null> {
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
    channel: FilteredChannel,
    signal: AbortSignal,
    onPage: OnPage,
    begun: () => void,
  ): Promise<SnapshotStart | null> {
    await outlet.drained();
    await this.#places.enter(1, signal);
    let transaction: SnapshotTransaction | undefined;
    try {
      transaction = await this.#slots.run(() => this.#begin(channel), signal);
      begun();
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
