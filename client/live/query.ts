/**
 * One live query's rows and everyone who watches them. Owned by the client, which hands the same store to all who ask for the
 * same rows. What must stay true: watchers are called between transactions, never within one; an error ends it for all.
 */
import type { Row } from '../../shared/wire.ts';
import { PlankError } from '../change-iterator.ts';
import { dateOf } from '../clock.ts';
import { type Delivery, type SubscriptionState, tooManyRows } from '../state/stream.ts';
import { LiveRows, type RowKey } from './rows.ts';

/** More rows than a page should keep, and fewer than break it. */
export const defaultMaxRows = 100_000;

export interface LiveQuery<Item extends object = Row> {
  /** the current rows by key (of a composite one: its canonical JSON); this Map itself changes as they do */
  readonly rows: ReadonlyMap<RowKey, Item>;
  /** counts up whenever `rows`, `state` or `error` may have changed */
  readonly version: number;
  readonly state: SubscriptionState;
  /** while the state is `stale`, when something last said that changes can arrive: the rows are those of then, or newer; else null */
  readonly staleSince: Date | null;
  readonly error: Error | null;
  /** Resolves when the rows are there and current for the first time; rejects where the query is refused or closed before. */
  readonly ready: Promise<void>;
  /** Calls back whenever `version` has moved; the answer ends that. */
  subscribe(callback: () => void): () => void;
  /** Ends this handle; the server subscription ends shortly after the last one. */
  close(): void;
}

export class LiveStore {
  readonly #rows: LiveRows;
  readonly #given: readonly string[] | undefined;
  readonly #maxRows: number;
  readonly #watchers = new Set<() => void>();
  readonly ready: Promise<void>;
  #resolve!: () => void;
  #reject!: (error: Error) => void;
  /** of states and errors */
  #turns = 0;
  state: SubscriptionState = 'offline';
  staleSince: Date | null = null;
  error: Error | null = null;

  constructor({ key, maxRows }: { key: readonly string[] | undefined; maxRows: number }) {
    this.#given = key;
    this.#maxRows = maxRows;
    this.#rows = new LiveRows(key);
    this.ready = new Promise((resolve, reject) => {
      this.#resolve = resolve;
      this.#reject = reject;
    });
    this.ready.catch(() => {}); // whoever awaits it is told
  }

  get rows(): ReadonlyMap<RowKey, Row> {
    return this.#rows.rows;
  }

  get version(): number {
    return this.#rows.version + this.#turns;
  }

  watch(callback: () => void): () => void {
    const watcher = () => callback(); // the same function may watch twice
    this.#watchers.add(watcher);
    return () => void this.#watchers.delete(watcher);
  }

  take(delivery: Delivery): void {
    const before = this.version;
    if (delivery.kind === 'change') this.#rows.apply(delivery.change);
    else if (delivery.kind === 'position') this.#rows.passed(delivery.pos);
    else if (delivery.kind === 'snapshot') this.#replace(delivery.rows, delivery.key ?? this.#given);
    else if (delivery.kind === 'state') this.#turn(delivery.state, delivery.since);
    else if (delivery.kind === 'error') this.#fail(new PlankError(delivery.code, delivery.message));
    if (this.rows.size > this.#maxRows) {
      const { code, message } = tooManyRows(this.#maxRows);
      this.#fail(new PlankError(code, message));
    }
    if (this.version !== before) for (const watcher of this.#watchers) watcher();
  }

  /** The rows stay what they were, and follow nothing any more. */
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
