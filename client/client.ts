/**
 * The SDK's shell: sockets, timers and the application's handlers around the pure brain (connection-state.ts). It owns one
 * connection. What must stay true: effects run in order, and an event that a handler causes waits until they have; a handler that
 * has unsubscribed is called no more; `position()` moves after the handler has returned.
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
import { ChangeIterator, PlankError } from './change-iterator.ts';
import { dateOf } from './clock.ts';
import { checkChanges, checkHandlers, checkLive, checkPlank, checkSubscribe, checkTable, subjectOf } from './input.ts';
import { LiveHandle } from './live/handle.ts';
import { defaultMaxRows, type LiveQuery, LiveStore } from './live/query.ts';
import { Socket, socketUrl } from './socket.ts';
import { reduce } from './state/machine.ts';
import { type Effect, type Event, initialState, type Link, type State } from './state/model.ts';
import type { Delivery, SubscriptionState } from './state/stream.ts';
import { canonical, type Subject, subjectKey } from './values/canonical.ts';

/** Connects with the first subscription. */
export function createPlank(options: PlankOptions = {}): Plank {
  return new Client(checkPlank(options));
}

/** How long a live query that nobody watches is kept: components come and go. */
const lingerMs = 1_000;

interface Store {
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
  readonly #takers = new Map<number, (delivery: Delivery) => void>();
  readonly #watchers = new Set<(link: Link) => void>();
  /** the same object for the same name, so that a React hook may depend on it */
  readonly #tables = new Map<string, Table>();
  readonly #stores = new Map<string, Store>();
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
      // what was left out is not what was given as `undefined`
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
    ask: { subject: Subject; snapshot: boolean; from: string | null; maxRows?: number },
    take: (delivery: Delivery) => void,
  ): () => void {
    this.#socket.check();
    const member = ++this.#members;
    this.#takers.set(member, take);
    this.#dispatch({ type: 'subscribe', member, ...ask });
    this.#dispatch({ type: 'start' });
    return () => {
      if (this.#takers.delete(member)) this.#dispatch({ type: 'unsubscribe', member });
    };
  }

  #subscribe(table: string, options: SubscribeOptions, handlers: Handlers<never>): Subscription {
    const { snapshot = false, from = null } = options;
    let position: string | null = from;
    let state: SubscriptionState = 'offline';
    let staleSince: Date | null = null;
    const take = (delivery: Delivery) => {
      if (delivery.kind === 'change') handlers.onChange?.(delivery.change as Change as Change<never>);
      else if (delivery.kind === 'snapshot') handlers.onSnapshot?.(delivery.rows as never[]);
      else if (delivery.kind === 'resync') handlers.onResync?.(delivery.reason);
      else if (delivery.kind === 'error' && handlers.onError)
        handlers.onError(new PlankError(delivery.code, delivery.message));
      else if (delivery.kind === 'error') this.#tellEnd(table, delivery);
      else if (delivery.kind === 'state') {
        state = delivery.state;
        staleSince = delivery.since === undefined ? null : dateOf(delivery.since);
        handlers.onState?.(state, staleSince);
      }
    };
    const unsubscribe = this.#attach({ subject: subjectOf(table, options), snapshot, from }, (delivery) => {
      try {
        take(delivery);
      } finally {
        if (delivery.kind === 'change') position = delivery.change.pos;
        else if (delivery.kind === 'position') position = delivery.pos;
        else if (delivery.kind === 'resync' || delivery.kind === 'snapshot') position = null;
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
    const of = subjectOf(table, options);
    const attach = (at: string | null, take: (delivery: Delivery) => void) =>
      this.#attach({ subject: of, snapshot: false, from: at }, take);
    return new ChangeIterator(attach, { from: from ?? null, bufferSize, signal });
  }

  #live<Item extends object>(
    table: string,
    options: LiveOptions,
    callback?: (rows: ReadonlyMap<unknown, Item>) => void,
  ): LiveQuery<Item> {
    const of = subjectOf(table, options);
    const { maxRows = defaultMaxRows } = options;
    const key = canonical([subjectKey(of), options.key ?? null, maxRows]);
    let shared = this.#stores.get(key);
    if (!shared) {
      const store = new LiveStore({ key: options.key, maxRows });
      const made: Store = { store, handles: 0, detach: () => {} };
      shared = made;
      made.detach = this.#attach({ subject: of, snapshot: true, from: null, maxRows }, (delivery) => {
        store.take(delivery);
        if (delivery.kind === 'error') this.#tellEnd(table, delivery);
        if (store.state !== 'ended') return;
        // the next one who asks may try again
        if (this.#stores.get(key) === made) this.#stores.delete(key);
        made.detach();
      });
      // not one that was refused on the spot
      if (store.state !== 'ended') this.#stores.set(key, made);
    }
    const { store } = shared;
    clearTimeout(shared.linger);
    shared.handles++;
    const guard = (call: () => void) => this.#guard(call);
    const query = new LiveHandle<Item>(store, { guard, release: () => this.#release(key, shared) });
    if (callback) query.callBack(callback);
    return query;
  }

  #release(key: string, shared: Store): void {
    shared.handles--;
    if (shared.handles > 0) return;
    const drop = () => {
      if (this.#stores.get(key) === shared) this.#stores.delete(key);
      shared.detach();
    };
    if (this.#stores.get(key) !== shared) return drop();
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
        return void this.#token(effect.socket);
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
        this.#tell(effect.code ? new PlankError(effect.code, effect.message) : new Error(effect.message));
    }
  }

  #deliver(member: number, delivery: Delivery): void {
    const take = this.#takers.get(member);
    if (delivery.kind === 'state' && delivery.state === 'ended') this.#takers.delete(member);
    this.#guard(() => take?.(delivery));
  }

  async #token(socket: number): Promise<void> {
    const { token } = this.#options;
    if (typeof token !== 'function') {
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

  /** What the application throws must not stop the frames behind it. */
  #guard(call: () => void): void {
    try {
      call();
    } catch (error) {
      if (this.#options.onError) this.#tell(error as Error);
      else throwLater(error);
    }
  }

  /** A subscription has ended whose application may not look. That the connection is closed for good is told once, for all. */
  #tellEnd(table: string, { code, message }: { code: string; message: string }): void {
    if (code !== 'CLOSED') this.#tell(new PlankError(code, `the subscription to ${table} has ended: ${message}`));
  }

  /** What it throws in turn goes where nobody catches it. Without it, the console is told: nothing goes wrong in silence. */
  #tell(error: Error): void {
    try {
      if (this.#options.onError) this.#options.onError(error);
      // oxlint-disable-next-line no-console -- an application that gave no handler has no other place to find it
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
