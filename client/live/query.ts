/**
 * The rows of a live query and the callbacks that watch them. All handles on the same rows share one store. What
 * must stay true: watchers are called between transactions, never within a transaction. An error ends the store for
 * all handles.
 */
import type { Row } from '../../shared/wire.ts';
import { type Delivery, type SubscriptionState, tooManyRows } from '../state/delivery.ts';
import { dateOf } from '../values/clock.ts';
import { PlankError } from '../values/plank-error.ts';
import { LiveRows, type RowKey } from './rows.ts';

/** This is more than a page should hold, but not so many rows that the page breaks. */
export const defaultMaxRows = 100_000;

export interface LiveQuery<Item extends object = Row> {
  /**
   * The current rows by primary key. For a composite primary key, the Map's key is the canonical JSON,
   * `{"a":1,"b":"x"}`. The Map always stays the same object. It changes by whole transactions.
   */
  readonly rows: ReadonlyMap<RowKey, Item>;
  /** grows whenever `rows`, `state` or `error` may have changed */
  readonly version: number;
  readonly state: SubscriptionState;
  /**
   * If `state` is `stale`: the time when the server last confirmed that changes can arrive. The rows are from this
   * time or newer. Otherwise null.
   */
  readonly staleSince: Date | null;
  /**
   * The reason why the query has ended: a PlankError, or an Error if a row lacks a key column. The rows stay as
   * they were. Null while the query runs, and after `close`.
   */
  readonly error: Error | null;
  /**
   * Resolves when the rows are complete for the first time. Rejects with `error` if the query ends before that, or
   * with a PlankError `CLOSED` if the client is closed before that. Stays pending while there is no connection.
   * After `close` it may stay pending for ever.
   */
  readonly ready: Promise<void>;
  /** Calls `callback` whenever `version` has grown. Returns a function that ends the calls. */
  subscribe(callback: () => void): () => void;
  /**
   * Ends the calls of all callbacks of this query. The subscription on the server ends 1 s after the last query of
   * the same rows was closed.
   */
  close(): void;
}

export class LiveStore {
  readonly #rows: LiveRows;
  readonly #key: readonly string[] | undefined;
  readonly #maxRows: number;
  readonly #watchers = new Set<() => void>();
  readonly ready: Promise<void>;
  #resolve!: () => void;
  #reject!: (error: Error) => void;
  /** how often the state or the error has changed */
  #turns = 0;
  state: SubscriptionState = 'offline';
  staleSince: Date | null = null;
  error: Error | null = null;

  /** @param key the columns of the primary key, in case the server does not send them */
  constructor({ key, maxRows }: { key: readonly string[] | undefined; maxRows: number }) {
    this.#key = key;
    this.#maxRows = maxRows;
    this.#rows = new LiveRows(key);
    this.ready = new Promise((resolve, reject) => {
      this.#resolve = resolve;
      this.#reject = reject;
    });
    this.ready.catch(() => {}); // if the application never looks at `ready`, its rejection must not be unhandled
  }

  get rows(): ReadonlyMap<RowKey, Row> {
    return this.#rows.rows;
  }

  get version(): number {
    return this.#rows.version + this.#turns;
  }

  watch(callback: () => void): () => void {
    const watcher = () => callback(); // a new function, because the application may pass the same callback twice
    this.#watchers.add(watcher);
    return () => void this.#watchers.delete(watcher);
  }

  receive(delivery: Delivery): void {
    const before = this.version;
    if (delivery.kind === 'change') this.#rows.apply(delivery.change);
    else if (delivery.kind === 'position') this.#rows.reach(delivery.pos);
    else if (delivery.kind === 'snapshot') this.#replace(delivery.rows, delivery.key ?? this.#key);
    else if (delivery.kind === 'state') this.#turn(delivery.state, delivery.since);
    else if (delivery.kind === 'error') this.#fail(new PlankError(delivery.code, delivery.message));
    if (this.rows.size > this.#maxRows) {
      const { code, message } = tooManyRows(this.#maxRows);
      this.#fail(new PlankError(code, message));
    }
    if (this.version !== before) for (const watcher of this.#watchers) watcher();
  }

  /** Ends the query. The rows stay as they are, and no longer follow the table. */
  #fail(error: Error): void {
    if (this.error !== null) return;
    this.error = error;
    this.state = 'ended';
    this.staleSince = null;
    this.#turns++;
    this.#reject(error);
  }

  #replace(rows: readonly Row[], key: readonly string[] | undefined): void {
    try {
      this.#rows.replace(rows, key);
    } catch (error) {
      this.#fail(error as Error);
    }
  }

  #turn(state: SubscriptionState, since: number | undefined): void {
    this.state = state;
    this.staleSince = since === undefined ? null : dateOf(since);
    this.#turns++;
    if (state === 'live') this.#resolve();
    if (state === 'ended') this.#reject(new PlankError('CLOSED', 'the client was closed'));
  }
}
