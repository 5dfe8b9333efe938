/**
 * A handle on a live query. Several parts of an application may each hold a handle on the same query. What must stay
 * true: after `close`, the handle calls no callback. If a callback throws, the other callbacks are still called.
 */
import type { Row } from '../../shared/wire.ts';
import type { SubscriptionState } from '../state/delivery.ts';
import type { LiveQuery, LiveStore } from './query.ts';
import type { RowKey } from './rows.ts';

interface Owner {
  /** runs code of the application, and reports what this code throws */
  guard: (call: () => void) => void;
  /** called when this handle is closed */
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

  // `subscribe` and `close` are arrow functions, because hooks pass these functions on without the handle
  readonly subscribe = (callback: () => void): (() => void) => {
    const unwatch = this.#store.watch(() => this.#owner.guard(callback));
    const end = () => {
      this.#ends.delete(end);
      unwatch();
    };
    this.#ends.add(end);
    return end;
  };

  /**
   * Subscribes a callback that gets the rows. If there are rows already, the first call follows at once, in a
   * microtask.
   */
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
