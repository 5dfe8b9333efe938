/**
 * Decides when to drain. Writers ring (NOTIFY) only while changes are rare; otherwise this listener polls. Network
 * cards work in the same way: they interrupt at low load, and are polled at high load. One advisory lock decides
 * whether writers ring, so that no wake-up is lost:
 *
 *   ringing    this listener holds the lock exclusively. A writer cannot share the lock, so the writer notifies
 *              when it commits.
 *   polling    entered when busy: nobody holds the lock exclusively. A writer shares the lock until its
 *              transaction ends, and does not notify. This listener drains again and again.
 *   returning  this listener has requested the lock. New writers see the request and notify. Earlier writers share
 *              the lock until they end, and do not notify, so this listener polls every few milliseconds. When the
 *              last of them has ended, Postgres grants the lock, and this listener drains once more.
 *
 *   ringing ─busy─▶ polling ─calm─▶ returning ─granted─▶ ringing       lock connection lost ─▶ returning
 *                      ▲────busy: the request is withdrawn────┘
 *
 * Busy: there are more transactions than `busyPerSecond`, or drains that find something take more than
 * `busyShare` of the time. The rate alone is not enough: commits that notify wait for each other's WAL
 * flushes. If flushes are slow, even many writers together reach only a few hundred transactions a second.
 * Such a rate would never end the ringing, although the ringing is what slows the writers down.
 *
 * One connection receives the notifications, and another one holds the lock, because a session that waits
 * for a lock receives no notifications. Each connection is checked at intervals. When a lost connection is
 * back, the listener drains once.
 */

import { type Client, type Connection, connect, disconnect } from '#shared/postgres/postgres.ts';
import type { Log } from '#shared/process/logger.ts';
import type { ListenerMetrics } from '#shared/process/metrics.ts';
import { Backoff, Bell, sleep, withDeadlineOr } from '#shared/waiting.ts';

const busyPerSecond = 1_000;
const calmPerSecond = 500;
const busyShare = 0.5;
const calmShare = 0.25;
const windowMs = 200;
const returningPauseMs = 3;
const maxPauseMs = 5;
const restShare = 3;
const maxRestMs = 30;
const heartbeatMs = 2_000;
const deadlineMs = 2_000;
/** a request for the lock ends after this time and is made again, so that a silent connection is noticed */
const lockTimeoutMs = 10_000;
const lockKey = '1886151019, 1'; // the same in plank.ring, shared/sql/004_capture.sql
/** SQLSTATEs: the lock timeout has passed; the request was withdrawn */
const notGranted = new Set(['55P03', '57014']);

type Mode = 'ringing' | 'polling' | 'returning';
/** why the listener should drain: a writer rang, the listener polls, or the safety interval has passed */
export type Wake = 'ring' | 'poll' | 'safety';

interface DoorbellOptions {
  databaseUrl: string;
  wake: 'auto' | 'poll';
  pollIntervalMs: number;
  safetyIntervalMs: number;
  log: Log;
  metrics: ListenerMetrics;
}

export class Doorbell {
  readonly #options: DoorbellOptions;
  readonly #bell = new Bell();
  readonly #abort = new AbortController();
  #mode: Mode = 'returning';
  #isListening = false;
  #loops: Promise<void>[] = [];
  #lastDrain = performance.now();
  #windowStart = performance.now();
  #windowCount = 0;
  /** the drains since `#windowStart` that found something: their number and total time */
  #windowDrains = 0;
  #windowDrainMs = 0;
  #busy = false;
  #lastCount = 0;
  /** the duration of the last drain that found something */
  #lastDrainMs = 0;
  #bellClient: Client | undefined;
  #requestPid = 0;
  readonly #modeChanged = new Bell();

  constructor(options: DoorbellOptions) {
    this.#options = options;
  }

  start(): void {
    if (this.#options.wake === 'auto') this.#loops = [this.#listenForRings(), this.#manageLock()];
  }

  async stop(): Promise<void> {
    this.#abort.abort();
    await Promise.all(this.#loops);
  }

  /** Whether writers ring and their notifications arrive. Then an idle listener costs the database nothing. */
  get ringing(): boolean {
    return this.#mode === 'ringing' && this.#isListening;
  }

  /**
   * Resolves when there may be changes to drain, at the latest after the safety interval. Also resolves
   * when the signal aborts.
   */
  async wait(signal: AbortSignal): Promise<Wake> {
    if (this.#options.wake === 'poll') {
      await sleep(this.#pauseAfterEmpty(this.#options.pollIntervalMs), signal);
      return 'poll';
    }
    if (this.ringing) {
      const safetyIn = this.#lastDrain + this.#options.safetyIntervalMs - performance.now();
      return (await this.#bell.wait(safetyIn, signal)) ? 'ring' : 'safety';
    }
    const pause = this.#mode === 'polling' ? this.#pollingPause() : this.#pauseAfterEmpty(returningPauseMs);
    return (await this.#bell.wait(pause, signal)) ? 'ring' : 'poll';
  }

  /** No pause after a drain that found something: there may be more. */
  #pauseAfterEmpty(ms: number): number {
    return this.#lastCount > 0 ? 0 : ms;
  }

  /**
   * After a drain that found something: a pause three times as long as the drain, at most 30 ms. Fewer and
   * larger drains leave more of the machine to the writers, and more of the WAL flushes that drains and
   * writers share. (The commits of a single writer wait for the flush of each drain. With 32 writers, a
   * drain and its publication cost 22 µs a change with a pause as long as the drain, and 15 µs with a pause
   * up to twice as long.)
   *
   * After an empty drain: a pause half as long as the last drain that found something, at most 2.5 ms.
   * While drains are slow, this pause adds little latency and saves most of the work.
   */
  #pollingPause(): number {
    if (this.#lastCount > 0) return Math.min(maxRestMs, restShare * this.#lastDrainMs);
    return Math.min(maxPauseMs, Math.floor(this.#lastDrainMs)) / 2;
  }

  /** Records how many transactions a drain found, and how long it took. This decides whether writers should ring. */
  drained(transactions: number, ms: number): void {
    const now = performance.now();
    this.#lastDrain = now;
    this.#lastCount = transactions;
    if (transactions > 0) {
      this.#windowCount += transactions;
      this.#windowDrains++;
      this.#windowDrainMs += ms;
      this.#lastDrainMs = ms;
    }
    const elapsed = now - this.#windowStart;
    if (elapsed < windowMs && this.#windowDrainMs < busyShare * windowMs) return;
    const perSecond = (this.#windowCount / elapsed) * 1_000;
    const share = this.#windowDrainMs / elapsed;
    // While writers ring, each transaction gets its own drain. This is the share of the time that drains
    // would take then. `share` would not do: pauses between drains make drains fewer and `share` smaller,
    // although the load is the same.
    const ringingShare = this.#windowDrains === 0 ? 0 : (share * this.#windowCount) / this.#windowDrains;
    this.#windowStart = now;
    this.#windowCount = 0;
    this.#windowDrains = 0;
    this.#windowDrainMs = 0;
    this.#busy = perSecond > busyPerSecond || share > busyShare;
    if (this.#mode === 'ringing' && this.#busy) this.#set('polling');
    else if (this.#mode === 'polling' && perSecond < calmPerSecond && ringingShare < calmShare) this.#set('returning');
    else if (this.#mode === 'returning' && this.#busy) this.#withdraw();
  }

  /**
   * Withdraws the request for the lock. While a long transaction makes the request wait, all other writers
   * notify, which costs too much when they are busy.
   */
  #withdraw(): void {
    // if this fails, it is tried again after the next window, or the request ends by its timeout
    if (this.#requestPid > 0)
      this.#bellClient?.query('select pg_cancel_backend($1)', [this.#requestPid]).catch(() => {});
  }

  #set(mode: Mode): void {
    if (mode === this.#mode) return;
    this.#mode = mode;
    this.#options.metrics.ringing.set(mode === 'ringing' ? 1 : 0);
    this.#options.log.debug({ mode }, 'the doorbell changed its mode');
    this.#modeChanged.ring();
    this.#bell.ring();
  }

  /**
   * Listens for notifications until stopped. After each connection and reconnection the listener drains, as
   * no notifications arrived without a connection.
   */
  async #listenForRings(): Promise<void> {
    await this.#keepConnected(
      'plank listener (bell)',
      deadlineMs,
      'lost the connection for notifications, polling until it is back',
      async ({ client }, signal) => {
        client.on('notification', () => {
          this.#options.metrics.rings.inc();
          this.#bell.ring();
        });
        await client.query('listen plank');
        this.#bellClient = client;
        this.#isListening = true;
        this.#bell.ring();
        for (;;) {
          await sleep(heartbeatMs, signal);
          signal.throwIfAborted();
          const { rows } = await withDeadlineOr(
            client.query("select from pg_listening_channels() c where c = 'plank'"),
            deadlineMs,
            () => new Error('the listening connection is silent'),
          );
          if (rows.length === 0)
            throw new Error('the connection no longer listens; is there a pooler before Postgres?');
        }
      },
      () => {
        this.#bellClient = undefined;
        this.#isListening = false;
        this.#bell.ring();
      },
    );
  }

  /** Takes and releases the lock as the mode requires, until stopped. */
  async #manageLock(): Promise<void> {
    await this.#keepConnected(
      'plank listener (lock)',
      0,
      'lost the connection for the doorbell lock',
      async ({ client }, signal) => {
        const run = (sql: string, ms = deadlineMs) =>
          withDeadlineOr(client.query(sql), ms, () => new Error('the connection for the doorbell lock is silent'));
        await run(`set lock_timeout = ${lockTimeoutMs}`);
        const { pid } = (await run('select pg_backend_pid() as pid')).rows[0] as { pid: number };
        await this.#evictFormerHolder(run);
        for (;;) {
          signal.throwIfAborted();
          if (this.#mode === 'returning') {
            this.#requestPid = pid;
            const lock = run(`select pg_advisory_lock(${lockKey})`, lockTimeoutMs + deadlineMs);
            const granted = await this.#granted(lock, signal);
            this.#requestPid = 0;
            if (granted) this.#set('ringing');
            else if (this.#busy) this.#set('polling');
          } else {
            if (this.#mode === 'polling') await run('select pg_advisory_unlock_all()');
            const changed = await this.#modeChanged.wait(heartbeatMs, signal);
            if (!changed && !signal.aborted) await run('select');
          }
        }
      },
      () => {
        this.#requestPid = 0;
        if (this.#mode !== 'polling') this.#set('returning');
      },
    );
  }

  /**
   * Resolves with true when the lock is granted, and with false if the request timed out or was withdrawn.
   * Rejects when the signal aborts, and if the connection fails.
   */
  async #granted(lock: Promise<unknown>, signal: AbortSignal): Promise<boolean> {
    const aborted = Promise.withResolvers<never>();
    const onAbort = () => aborted.reject(signal.reason);
    signal.addEventListener('abort', onAbort, { once: true });
    try {
      await Promise.race([lock, aborted.promise]);
      return true;
    } catch (error) {
      if (notGranted.has((error as { code?: string }).code ?? '')) return false;
      throw error;
    } finally {
      signal.removeEventListener('abort', onAbort);
    }
  }

  /**
   * Opens a connection and runs `work` with it. If `work` fails or the connection is lost, opens another
   * one and runs `work` again, until stopped.
   */
  async #keepConnected(
    applicationName: string,
    statementTimeoutMs: number,
    lostMessage: string,
    work: (connection: Connection, signal: AbortSignal) => Promise<never>,
    onLost: () => void,
  ): Promise<void> {
    const stopped = this.#abort.signal;
    const backoff = new Backoff(50, 2_000);
    while (!stopped.aborted) {
      let connection: Connection | undefined;
      try {
        connection = await connect(this.#options.databaseUrl, { applicationName, statementTimeoutMs });
        const since = performance.now();
        await work(connection, AbortSignal.any([stopped, connection.lost])).finally(() => {
          if (performance.now() - since > 5_000) backoff.reset();
        });
      } catch (error) {
        if (!stopped.aborted) this.#options.log.warn({ err: error }, lostMessage);
      }
      onLost();
      if (connection) await disconnect(connection.client);
      await sleep(backoff.next(), stopped);
    }
  }

  /**
   * Ends the session of a former leader that is paused and still holds the lock. As long as it holds the
   * lock, writers ring, which is correct but slow under load, and this listener polls. A former leader does
   * not need the session any more, and Postgres allows a role to end its own sessions.
   */
  async #evictFormerHolder(run: (sql: string) => Promise<unknown>): Promise<void> {
    await run(
      `select pg_terminate_backend(pid) from pg_locks
         where locktype = 'advisory' and classid = 1886151019 and objid = 1 and objsubid = 2
           and mode = 'ExclusiveLock' and granted and pid <> pg_backend_pid()
           and database = (select oid from pg_database where datname = current_database())`,
    ).catch((error: Error) =>
      this.#options.log.debug({ err: error }, 'could not end the session of the former leader'),
    );
  }
}
