/**
 * When to drain. Writers ring (NOTIFY) only while changes are rare, as a network card interrupts at low load and is polled
 * at high load. Whether they ring is decided by one advisory lock, so that no wake-up is lost:
 *
 *   ringing    this listener holds the lock exclusively. A writer cannot share it, so it notifies at its commit.
 *   polling    nobody holds it exclusively. A writer shares it until its transaction ends and stays silent; drains follow
 *              one another. Entered when busy.
 *   returning  the lock is requested. New writers see the request and notify; those that share the lock are polled for,
 *              a few milliseconds apart, until the last of them has ended and the lock is granted. Then one more drain.
 *
 *   ringing ─busy─▶ polling ─calm─▶ returning ─granted─▶ ringing       lock connection lost ─▶ returning
 *                      ▲────busy: the request is withdrawn────┘
 *
 * Busy: more transactions than `busyPerSecond`, or drains that find something take more than `busyShare` of the time. The
 * rate alone does not tell: notifying commits wait for each other through their flushes, so where flushes are slow many
 * writers come to a few hundred a second, and would be held there.
 *
 * A connection that hears the notifications and one that holds the lock: a session waiting for a lock hears nothing.
 * Each is asked now and then whether it still is what it was; after each loss the owner drains once.
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
/** a request that was not withdrawn is made again this often, so that a silent connection is noticed */
const lockTimeoutMs = 10_000;
const lockKey = '1886151019, 1'; // as in sql/004_capture.sql
/** the lock timeout has passed, or the request was withdrawn */
const notGranted = new Set(['55P03', '57014']);

type Mode = 'ringing' | 'polling' | 'returning';
/** why the owner should drain: it was told to, it is its turn, or nobody said anything for long */
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
  #hearing = false;
  #loops: Promise<void>[] = [];
  #lastDrain = performance.now();
  #windowStart = performance.now();
  #windowCount = 0;
  /** of drains that found something: how many there were, and their time */
  #windowDrains = 0;
  #windowDrainMs = 0;
  #busy = false;
  #lastCount = 0;
  /** how long the last drain took that found something */
  #lastDrainMs = 0;
  #bellClient: Client | undefined;
  #requestPid = 0;
  readonly #modeChanged = new Bell();

  constructor(options: DoorbellOptions) {
    this.#options = options;
  }

  start(): void {
    if (this.#options.wake === 'auto') this.#loops = [this.#hear(), this.#hold()];
  }

  async stop(): Promise<void> {
    this.#abort.abort();
    await Promise.all(this.#loops);
  }

  /** Whether writers ring at this moment and are heard: then an idle listener costs the database nothing. */
  get ringing(): boolean {
    return this.#mode === 'ringing' && this.#hearing;
  }

  /** Resolves when the log may have grown, at the latest after the safety interval; or on abort. */
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

  /** No pause behind a drain that found something: there may be more. */
  #pauseAfterEmpty(ms: number): number {
    return this.#lastCount > 0 ? 0 : ms;
  }

  /**
   * A drain that found something rests three times as long as it took: fewer drains, each of more, leave the writers more of a
   * machine and of a log's flushes that they share. (With 32 writers a drain and its publication cost 22 µs a change when drains
   * rested as long as they took, and 15 µs when they rested up to twice as long. And a single writer's commits wait for the flush
   * of each drain.) Where drains are slow, a pause between empty ones costs little latency and saves most of the work.
   */
  #pollingPause(): number {
    if (this.#lastCount > 0) return Math.min(maxRestMs, restShare * this.#lastDrainMs);
    return Math.min(maxPauseMs, Math.floor(this.#lastDrainMs)) / 2;
  }

  /** Tells how many transactions a drain found, and how long it took: this decides whether writers should ring. */
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
    // as if each transaction were drained by itself, as it is when all ring: what rests do to the share is not to count
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

  /** A request that a long transaction keeps waiting makes everybody else notify: not while they are many. */
  #withdraw(): void {
    // asked again while it is busy; else the request ends by its timeout
    if (this.#requestPid > 0)
      this.#bellClient?.query('select pg_cancel_backend($1)', [this.#requestPid]).catch(() => {});
  }

  #set(mode: Mode): void {
    if (mode === this.#mode) return;
    this.#mode = mode;
    this.#options.metrics.ringing.set(mode === 'ringing' ? 1 : 0);
    this.#options.log.debug({ mode }, 'doorbell');
    this.#modeChanged.ring();
    this.#bell.ring();
  }

  /** Listens for notifications, for ever: on each (re)connection the owner drains, for what was missed meanwhile. */
  async #hear(): Promise<void> {
    await this.#connected(
      'plank listener (bell)',
      deadlineMs,
      'lost the notifications, polling until they are back',
      async ({ client }, signal) => {
        client.on('notification', () => {
          this.#options.metrics.rings.inc();
          this.#bell.ring();
        });
        await client.query('listen plank');
        this.#bellClient = client;
        this.#hearing = true;
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
            throw new Error('the server forgot that this connection listens (a pooler in between?)');
        }
      },
      () => {
        this.#bellClient = undefined;
        this.#hearing = false;
        this.#bell.ring();
      },
    );
  }

  /** Takes and gives the lock as the mode asks for, for ever. */
  async #hold(): Promise<void> {
    await this.#connected(
      'plank listener (lock)',
      0,
      'lost the doorbell lock',
      async ({ client }, signal) => {
        const ask = (sql: string, ms = deadlineMs) =>
          withDeadlineOr(client.query(sql), ms, () => new Error('the connection of the doorbell lock is silent'));
        await ask(`set lock_timeout = ${lockTimeoutMs}`);
        const { pid } = (await ask('select pg_backend_pid() as pid')).rows[0] as { pid: number };
        await this.#evictFormerHolder(ask);
        for (;;) {
          signal.throwIfAborted();
          if (this.#mode === 'returning') {
            this.#requestPid = pid;
            const lock = ask(`select pg_advisory_lock(${lockKey})`, lockTimeoutMs + deadlineMs);
            const granted = await this.#granted(lock, signal);
            this.#requestPid = 0;
            if (granted) this.#set('ringing');
            else if (this.#busy) this.#set('polling');
          } else {
            if (this.#mode === 'polling') await ask('select pg_advisory_unlock_all()');
            const changed = await this.#modeChanged.wait(heartbeatMs, signal);
            if (!changed && !signal.aborted) await ask('select');
          }
        }
      },
      () => {
        this.#requestPid = 0;
        if (this.#mode !== 'polling') this.#set('returning');
      },
    );
  }

  /** False when the wait for the lock is to be thought over. Rejects when the signal aborts. */
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

  /** Keeps one connection for `work`, which runs until its signal aborts; connects again after a failure, until stopped. */
  async #connected(
    applicationName: string,
    statementTimeoutMs: number,
    trouble: string,
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
        if (!stopped.aborted) this.#options.log.warn({ err: error }, trouble);
      }
      onLost();
      if (connection) await disconnect(connection.client);
      await sleep(backoff.next(), stopped);
    }
  }

  /**
   * A former leader that is paused still holds the lock: writers ring, which is right but slow under load, and this one
   * would poll for ever. It leads no more, so its session is ended (allowed for the same role).
   */
  async #evictFormerHolder(ask: (sql: string) => Promise<unknown>): Promise<void> {
    await ask(
      `select pg_terminate_backend(pid) from pg_locks
         where locktype = 'advisory' and classid = 1886151019 and objid = 1 and objsubid = 2 and mode = 'ExclusiveLock' and granted
           and database = (select oid from pg_database where datname = current_database()) and pid <> pg_backend_pid()`,
    ).catch((error: Error) =>
      this.#options.log.debug({ err: error }, 'could not end the session of the former leader'),
    );
  }
}
