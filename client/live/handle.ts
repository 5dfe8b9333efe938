/**
 * What one part of an application holds of a live query that others may hold as well. What must
 * stay true: after `close` its callbacks are called no more; a callback that throws does not keep
 * other callbacks from being called.
 */
import type { Row } from '../../shared/wire.ts';
import type { SubscriptionState } from '../state/delivery.ts';
import type { LiveQuery, LiveStore } from './query.ts';
import type { RowKey } from './rows.ts';

interface Owner {
  /** runs code of the application */
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

  // needs no `this`, and neither does `close`: hooks pass such functions on by themselves
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
   * As `subscribe`. Where there are rows already, the first call follows at once, in a microtask.
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
