/**
 * What one application part holds of a live query that others may hold as well. What must stay true: its callbacks are called no more
 * once it is closed, and what one of them throws keeps nobody else from being called.
 */
import type { Row } from '../../shared/wire.ts';
import type { SubscriptionState } from '../state/stream.ts';
import type { LiveQuery, LiveStore } from './query.ts';
import type { RowKey } from './rows.ts';

interface Owner {
  /** runs what is the application's */
  guard: (call: () => void) => void;
  /** this handle is closed */
  release: () => void;
}

export class LiveHandle<Item extends object = Row> implements LiveQuery<Item> {
  readonly rows: ReadonlyMap<RowKey, Item>;
  readonly ready: Promise<void>;
  readonly #store: LiveStore;
  readonly #owner: Owner;
  readonly #ends = new Set<() => void>();
  #isOpen = true;

  constructor(store: LiveStore, owner: Owner) {
    this.#store = store;
    this.#owner = owner;
    this.rows = store.rows as ReadonlyMap<RowKey, never>;
    this.ready = store.ready;
  }

  get version(): number {
    return this.#store.version;
  }

  get state(): SubscriptionState {
    return this.#store.state;
  }

  get staleSince(): Date | null {
    return this.#store.staleSince;
  }

  get error(): Error | null {
    return this.#store.error;
  }

  /** Needs no `this`, as `close`: React's hooks and others pass them on as they are. */
  readonly subscribe = (callback: () => void): (() => void) => {
    const unwatch = this.#store.watch(() => this.#owner.guard(callback));
    const end = () => {
      this.#ends.delete(end);
      unwatch();
    };
    this.#ends.add(end);
    return end;
  };

  /** As `subscribe`, and soon with what there is already. */
  callBack(callback: (rows: ReadonlyMap<RowKey, Item>) => void): void {
    const end = this.subscribe(() => callback(this.rows));
    if (this.version === 0) return;
    queueMicrotask(() => {
      if (this.#ends.has(end)) this.#owner.guard(() => callback(this.rows));
    });
  }

  readonly close = (): void => {
    for (const end of this.#ends) end();
    if (this.#isOpen) this.#owner.release();
    this.#isOpen = false;
  };
}
