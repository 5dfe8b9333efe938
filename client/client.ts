/**
 * Runs the pure state machine (state/machine.ts): owns its socket, its timers and the calls of the application's
 * handlers. A client has one connection. What must stay true: effects run in order. If a handler causes an event, the
 * event waits until all effects have run. After a subscription has unsubscribed, its handlers are not called.
 * `position()` moves only after the handler has returned.
 */
import type { Row } from '../shared/wire.ts';
import type {
  Change,
  Changes,
  ChangesOptions,
  Handlers,
  LiveOptions,
  Plank,
  PlankOptions,
  SubscribeOptions,
  Subscription,
  Table,
} from './api.ts';
import { ChangeIterator } from './change-iterator.ts';
import { checkChanges, checkHandlers, checkLive, checkPlank, checkSubscribe, checkTable, rowQueryOf } from './input.ts';
import { LiveHandle } from './live/handle.ts';
import { defaultMaxRows, type LiveQuery, LiveStore } from './live/query.ts';
import type { RowKey } from './live/rows.ts';
import { Socket, socketUrl } from './socket.ts';
import type { Delivery, SubscriptionState } from './state/delivery.ts';
import { reduce } from './state/machine.ts';
import { type Effect, type Event, initialState, type Link, type State } from './state/model.ts';
import { canonical } from './values/canonical.ts';
import { dateOf } from './values/clock.ts';
import { PlankError } from './values/plank-error.ts';
import { queryKey, type RowQuery } from './values/row-query.ts';

/**
 * Makes a client of one Plank. The client connects when the application makes the first subscription. If an option is
 * invalid, throws a TypeError.
 */
export function createPlank(options: PlankOptions = {}): Plank {
  return new Client(checkPlank(options));
}

/** How long a live query without handles is kept: another component may soon ask for the same rows. */
const lingerMs = 1_000;

/** A live query, shared by all handles on the same rows. */
interface Shared {
  store: LiveStore;
  handles: number;
  linger?: ReturnType<typeof setTimeout>;
  detach: () => void;
}

class Client implements Plank {
  readonly #options: PlankOptions;
  readonly #socket: Socket;
  #state: State;
  readonly #events: Event[] = [];
  #isRunning = false;
  readonly #timers = new Map<string, ReturnType<typeof setTimeout>>();
  #members = 0;
  /** the receiver of each member (a subscription in the state machine), by the member's number */
  readonly #receivers = new Map<number, (delivery: Delivery) => void>();
  readonly #watchers = new Set<(link: Link) => void>();
  /** keeps the table object of each name, because React hooks compare their dependencies by identity */
  readonly #tables = new Map<string, Table>();
  readonly #stores = new Map<string, Shared>();
  /** `close` aborts this controller, which removes the listeners on the page */
  readonly #ends = new AbortController();

  constructor(options: PlankOptions) {
    this.#options = options;
    this.#socket = new Socket(socketUrl(options.url), options.WebSocket, (event) => this.#dispatch(event));
    this.#state = { ...initialState, answerMs: options.answerTimeoutMs ?? initialState.answerMs };
    if (typeof document === 'undefined') return;
    const wake = () => document.visibilityState === 'visible' && this.#dispatch({ type: 'wake' });
    addEventListener('online', wake, { signal: this.#ends.signal });
    document.addEventListener('visibilitychange', wake, { signal: this.#ends.signal });
  }

  get state(): Link['status'] {
    return this.#state.link.status;
  }

  onState(callback: (link: Link) => void): () => void {
    const watcher = (link: Link) => callback(link);
    this.#watchers.add(watcher);
    return () => void this.#watchers.delete(watcher);
  }

  table<Item extends object = Row>(name: string): Table<Item> {
    checkTable(name);
    let table = this.#tables.get(name);
    if (!table) {
      table = this.#table(name);
      this.#tables.set(name, table);
    }
    return table as Table<never>;
  }

  #table<Item extends object>(name: string): Table<Item> {
    return {
      name,
      subscribe: (options, handlers) => {
        checkHandlers(handlers);
        return this.#subscribe(name, checkSubscribe(options), handlers);
      },
      // an argument that is `undefined` is refused; a missing argument is allowed
      changes: (...given) => this.#changes(name, checkChanges(given.length === 0 ? {} : given[0])) as Changes<Item>,
      live: (...given) => this.#live(name, checkLive(given.length === 0 ? {} : given[0], given[1]), given[1]),
    };
  }

  close(): void {
    this.#ends.abort();
    for (const { linger } of this.#stores.values()) clearTimeout(linger);
    this.#dispatch({ type: 'close' });
  }

  // ------------------------------------------------------------------------------------------ subscriptions

  #attach(
    request: { query: RowQuery; snapshot: boolean; from: string | null; maxRows?: number },
    receive: (delivery: Delivery) => void,
  ): () => void {
    this.#socket.check();
    const member = ++this.#members;
    this.#receivers.set(member, receive);
    this.#dispatch({ type: 'subscribe', member, ...request });
    this.#dispatch({ type: 'start' });
    return () => {
      if (this.#receivers.delete(member)) this.#dispatch({ type: 'unsubscribe', member });
    };
  }

  #subscribe(table: string, options: SubscribeOptions, handlers: Handlers<never>): Subscription {
    const { snapshot = false, from = null } = options;
    let position: string | null = from;
    // The rows of a snapshot may contain changes with later positions. So from the snapshot until `live`, there is no
    // position from which the application can continue.
    let isFromRows = false;
    let state: SubscriptionState = 'offline';
    let staleSince: Date | null = null;
    const handle = (delivery: Delivery) => {
      if (delivery.kind === 'change') handlers.onChange?.(delivery.change as Change as Change<never>);
      else if (delivery.kind === 'snapshot') handlers.onSnapshot?.(delivery.rows as never[]);
      else if (delivery.kind === 'resync') handlers.onResync?.(delivery.reason);
      else if (delivery.kind === 'error' && handlers.onError)
        handlers.onError(new PlankError(delivery.code, delivery.message));
      else if (delivery.kind === 'error') this.#reportEnd(table, delivery);
      else if (delivery.kind === 'state') {
        state = delivery.state;
        staleSince = delivery.since === undefined ? null : dateOf(delivery.since);
        handlers.onState?.(state, staleSince);
      }
    };
    const unsubscribe = this.#attach({ query: rowQueryOf(table, options), snapshot, from }, (delivery) => {
      try {
        handle(delivery);
      } finally {
        if (delivery.kind === 'change' && !isFromRows) position = delivery.change.pos;
        else if (delivery.kind === 'position') {
          position = delivery.pos;
          isFromRows = false;
        } else if (delivery.kind === 'resync' || delivery.kind === 'snapshot') {
          position = null;
          isFromRows = delivery.kind === 'snapshot';
        }
      }
    });
    return {
      position: () => position,
      get state() {
        return state;
      },
      get staleSince() {
        return staleSince;
      },
      unsubscribe,
    };
  }

  #changes(table: string, { from, bufferSize = 1_000, signal, ...options }: ChangesOptions): ChangeIterator {
    const query = rowQueryOf(table, options);
    const attach = (at: string | null, receive: (delivery: Delivery) => void) =>
      this.#attach({ query, snapshot: false, from: at }, receive);
    return new ChangeIterator(attach, { from: from ?? null, bufferSize, signal });
  }

  #live<Item extends object>(
    table: string,
    options: LiveOptions,
    callback?: (rows: ReadonlyMap<RowKey, Item>) => void,
  ): LiveQuery<Item> {
    const query = rowQueryOf(table, options);
    const { key, maxRows = defaultMaxRows } = options;
    const storeKey = canonical([queryKey(query), key ?? null, maxRows]);
    const shared = this.#stores.get(storeKey) ?? this.#open(storeKey, query, { key, maxRows });
    clearTimeout(shared.linger);
    shared.handles++;
    const guard = (call: () => void) => this.#guard(call);
    const handle = new LiveHandle<Item>(shared.store, { guard, release: () => this.#release(storeKey, shared) });
    if (callback) handle.callBack(callback);
    return handle;
  }

  #open(storeKey: string, query: RowQuery, options: { key: readonly string[] | undefined; maxRows: number }): Shared {
    const { maxRows } = options;
    const store = new LiveStore(options);
    const shared: Shared = { store, handles: 0, detach: () => {} };
    shared.detach = this.#attach({ query, snapshot: true, from: null, maxRows }, (delivery) => {
      store.receive(delivery);
      if (delivery.kind === 'error') this.#reportEnd(query.table, delivery);
      if (store.state !== 'ended') return;
      // The query is removed, so that the next call of `live` opens it again.
      if (this.#stores.get(storeKey) === shared) this.#stores.delete(storeKey);
      shared.detach();
    });
    // the subscription may have ended within `attach`
    if (store.state !== 'ended') this.#stores.set(storeKey, shared);
    return shared;
  }

  #release(storeKey: string, shared: Shared): void {
    shared.handles--;
    if (shared.handles > 0) return;
    const drop = () => {
      if (this.#stores.get(storeKey) === shared) this.#stores.delete(storeKey);
      shared.detach();
    };
    if (this.#stores.get(storeKey) !== shared) return drop();
    shared.linger = setTimeout(drop, lingerMs);
    (shared.linger as { unref?: () => void }).unref?.();
  }

  // ------------------------------------------------------------------------------------------ effects

  #dispatch(event: Event): void {
    this.#events.push(event);
    if (this.#isRunning) return;
    this.#isRunning = true;
    try {
      for (let next = this.#events.shift(); next; next = this.#events.shift()) {
        const { state, effects } = reduce(this.#state, next, { now: performance.now(), random: Math.random() });
        this.#state = state;
        for (const effect of effects) this.#run(effect);
      }
    } finally {
      this.#isRunning = false;
    }
  }

  #run(effect: Effect): void {
    switch (effect.type) {
      case 'deliver':
        return this.#deliver(effect.member, effect.delivery);
      case 'send':
        return this.#socket.send(JSON.stringify(effect.frame));
      case 'connect':
        return this.#socket.connect(effect.socket);
      case 'close-socket':
        return this.#socket.close();
      case 'get-token':
        return void this.#getToken(effect.socket);
      case 'set-timer':
        return this.#setTimer(effect.name, effect.ms);
      case 'clear-timer':
        clearTimeout(this.#timers.get(effect.name));
        this.#timers.delete(effect.name);
        return;
      case 'notify':
        for (const watcher of this.#watchers) this.#guard(() => watcher(effect.link));
        return;
      case 'report':
        this.#report(effect.code ? new PlankError(effect.code, effect.message) : new Error(effect.message));
    }
  }

  #deliver(member: number, delivery: Delivery): void {
    const receive = this.#receivers.get(member);
    if (delivery.kind === 'state' && delivery.state === 'ended') this.#receivers.delete(member);
    this.#guard(() => receive?.(delivery));
  }

  async #getToken(socket: number): Promise<void> {
    const { token } = this.#options;
    if (typeof token !== 'function') {
      // a fixed token cannot be renewed, because there is no other token
      if (this.state === 'open') return;
      this.#dispatch({ type: 'token', socket, ...(token === undefined ? {} : { token }) });
      return;
    }
    try {
      this.#dispatch({ type: 'token', socket, token: await token() });
    } catch (error) {
      this.#dispatch({ type: 'token-failed', socket, message: error instanceof Error ? error.message : String(error) });
    }
  }

  #setTimer(name: string, ms: number): void {
    clearTimeout(this.#timers.get(name));
    const timer = setTimeout(
      () => {
        this.#timers.delete(name);
        this.#dispatch({ type: 'timer', name });
      },
      Math.min(ms, 2 ** 31 - 1),
    );
    this.#timers.set(name, timer);
  }

  /** Runs code of the application. An error that this code throws must not stop the effects that follow. */
  #guard(call: () => void): void {
    try {
      call();
    } catch (error) {
      if (this.#options.onError) this.#report(error as Error);
      else throwLater(error);
    }
  }

  /**
   * Reports that a subscription has ended, because the application may not look at the subscription's state. If the
   * connection was closed, reports nothing here: the end of the connection ends all subscriptions, and the state
   * machine reports it once.
   */
  #reportEnd(table: string, { code, message }: { code: string; message: string }): void {
    if (this.state !== 'closed')
      this.#report(new PlankError(code, `the subscription to ${table} has ended: ${message}`));
  }

  /**
   * Passes a problem to `onError`. Without `onError`, writes it to the console, so that no problem is silent. If
   * `onError` throws, its error becomes an uncaught error.
   */
  #report(error: Error): void {
    try {
      if (this.#options.onError) this.#options.onError(error);
      // oxlint-disable-next-line no-console -- without `onError`, there is no other place for the problem
      else console.error(`plank: ${error.message}`);
    } catch (other) {
      throwLater(other);
    }
  }
}

function throwLater(error: unknown): void {
  queueMicrotask(() => {
    throw error;
  });
}
