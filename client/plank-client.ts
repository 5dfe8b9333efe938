/**
 * The SDK's shell: sockets, timers and the application's handlers around the pure brain (connection-state.ts). It owns one
 * connection. What must stay true: effects run in order, and an event that a handler causes waits until they have; a handler that
 * has unsubscribed is called no more; `position()` moves after the handler has returned.
 */
import {
  type ChangeFrame,
  type Filter,
  parsePosition,
  type ResyncReason,
  type Row,
  type ServerFrame,
  subprotocol,
} from '../shared/wire.ts';
import { canonical, type Subject, subjectKey } from './canonical.ts';
import { ChangeIterator, PlankError } from './change-iterator.ts';
import { type Effect, type Event, initialState, type Link, reduce, type State } from './connection-state.ts';
import { type LiveQuery, LiveStore } from './live-query.ts';
import type { Delivery, SubscriptionState } from './shared-stream.ts';

export type { Filter, ResyncReason, Row } from '../shared/wire.ts';
export { PlankError } from './change-iterator.ts';
export type { Link } from './connection-state.ts';
export type { LiveQuery } from './live-query.ts';
export type { RowKey } from './live-rows.ts';
export type { SubscriptionState } from './shared-stream.ts';

/** What is used of a WebSocket: the browser's and Node's have it. (So has that of `ws`, whose types say it in another way.) */
export interface SocketLike {
  addEventListener(type: 'open' | 'message' | 'close' | 'error', listener: (event: SocketEvent) => void): void;
  send(text: string): void;
  close(code?: number, reason?: string): void;
}

/** A message has `data`, a close `code` and `reason`. */
interface SocketEvent {
  readonly data?: unknown;
  readonly code?: number;
  readonly reason?: string;
}

export interface PlankOptions {
  /** ws(s):// or http(s)://…/ws; in a browser it may be relative, and is `ws` beside the page unless given */
  url?: string | URL;
  /** sent with each hello; a function is asked anew before each connection */
  token?: string | (() => string | Promise<string>);
  /** instead of the global one */
  WebSocket?: new (
    url: string,
    protocol: string,
  ) => SocketLike;
  /**
   * Problems of no subscription (a token that could not be had), and what handlers throw; unless given, the latter is thrown
   * where nobody catches it.
   */
  onError?: (error: Error) => void;
}

/** One row change as a subscription sees it. */
export type Change<Item extends object = Row> = Omit<ChangeFrame, 'type' | 'ch' | 'data'> & { data?: Item };

export interface SubscribeOptions {
  where?: Filter;
  columns?: readonly string[];
  /** begin with the rows, and read them anew where changes were lost */
  snapshot?: boolean;
  /** begin behind this position; it wins over the rows while it is kept */
  from?: string;
}

export interface Handlers<Item extends object = Row> {
  onChange?: (change: Change<Item>) => void;
  /** every row there is: replaces what was known, at first and after each resync */
  onSnapshot?: (rows: readonly Item[]) => void;
  /** changes are missing here; rows follow where a snapshot was asked for */
  onResync?: (reason: ResyncReason) => void;
  onState?: (state: SubscriptionState) => void;
  /** the subscription has ended */
  onError?: (error: PlankError) => void;
}

export interface Subscription {
  /** of the last change that was handled, or that everything up to has come; null before that. Give it as `from` to go on. */
  position(): string | null;
  readonly state: SubscriptionState;
  unsubscribe(): void;
}

export interface ChangesOptions {
  where?: Filter;
  columns?: readonly string[];
  from?: string;
  /** changes that may wait for the consumer, 1,000 unless given */
  bufferSize?: number;
  signal?: AbortSignal;
}

/** Changes in order. Pauses at `bufferSize`; throws PlankError RESYNC where changes are missing. */
export interface Changes<Item extends object = Row> extends AsyncIterableIterator<Change<Item>, undefined> {
  /**
   * Everything up to here is handled: a change is when the next one is asked for. Moves on while nothing that concerns it happens,
   * so that storing it now and then keeps a quiet consumer's place within the retention. Null before there is one.
   */
  position(): string | null;
}

export interface LiveOptions {
  where?: Filter;
  columns?: readonly string[];
  /** the columns of the primary key, where the server does not say them; `id` unless given */
  key?: readonly string[];
}

export interface Table<Item extends object = Row> {
  readonly name: string;
  subscribe(options: SubscribeOptions, handlers: Handlers<Item>): Subscription;
  /** Subscribes at once. */
  changes(options?: ChangesOptions): Changes<Item>;
  /** An object with a `where` object, a `columns` or a `key` array counts as options, any other as the filter. */
  live(where?: Filter | LiveOptions, callback?: (rows: ReadonlyMap<unknown, Item>) => void): LiveQuery<Item>;
}

export interface Plank {
  table<Item extends object = Row>(name: string): Table<Item>;
  readonly state: Link['status'];
  /** Calls back with each state, not with the present one; the answer ends that. */
  onState(callback: (link: Link) => void): () => void;
  /** For good. */
  close(): void;
}

/** Connects with the first subscription. */
export function createPlank(options: PlankOptions = {}): Plank {
  return new Client(options);
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
  readonly #url: string;
  #state: State = initialState;
  #socket: SocketLike | null = null;
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
    this.#url = socketUrl(options.url);
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
      subscribe: (options, handlers) => this.#subscribe(name, options, handlers),
      changes: (options = {}) => this.#changes(name, options) as Changes<Item>,
      live: (where = {}, callback) => {
        const query = this.#live<Item>(name, isLiveOptions(where) ? where : { where });
        if (callback) {
          query.subscribe(() => this.#guard(() => callback(query.rows)));
          if (query.version > 0) queueMicrotask(() => this.#guard(() => callback(query.rows)));
        }
        return query;
      },
    };
  }

  close(): void {
    this.#ends.abort();
    for (const { linger } of this.#stores.values()) clearTimeout(linger);
    this.#dispatch({ type: 'close' });
  }

  // ------------------------------------------------------------------------------------------ subscriptions

  #attach(subject: Subject, snapshot: boolean, from: string | null, take: (delivery: Delivery) => void): () => void {
    if (from !== null && parsePosition(from) === null) throw new TypeError(`${JSON.stringify(from)} is no position`);
    const member = ++this.#members;
    this.#takers.set(member, take);
    this.#dispatch({ type: 'subscribe', member, subject, from, snapshot });
    this.#dispatch({ type: 'start' });
    return () => {
      if (this.#takers.delete(member)) this.#dispatch({ type: 'unsubscribe', member });
    };
  }

  #subscribe(table: string, options: SubscribeOptions, handlers: Handlers<never>): Subscription {
    const { snapshot = false, from = null } = options;
    let position: string | null = from;
    let state: SubscriptionState = 'offline';
    const take = (delivery: Delivery) => {
      if (delivery.kind === 'change') handlers.onChange?.(delivery.change as Change as Change<never>);
      else if (delivery.kind === 'snapshot') handlers.onSnapshot?.(delivery.rows as never[]);
      else if (delivery.kind === 'resync') handlers.onResync?.(delivery.reason);
      else if (delivery.kind === 'error') handlers.onError?.(new PlankError(delivery.code, delivery.message));
      else if (delivery.kind === 'state') {
        state = delivery.state;
        handlers.onState?.(state);
      }
    };
    const unsubscribe = this.#attach(subject(table, options), snapshot, from, (delivery) => {
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
      unsubscribe,
    };
  }

  #changes(table: string, { from, bufferSize = 1_000, signal, ...options }: ChangesOptions): ChangeIterator {
    const of = subject(table, options);
    const attach = (at: string | null, take: (delivery: Delivery) => void) => this.#attach(of, false, at, take);
    const iterator = new ChangeIterator(attach, { from: from ?? null, bufferSize });
    const stop = () => void iterator.return();
    if (signal?.aborted) stop();
    signal?.addEventListener('abort', stop, { once: true });
    return iterator;
  }

  #live<Item extends object>(table: string, options: LiveOptions): LiveQuery<Item> {
    const of = subject(table, options);
    const key = canonical([subjectKey(of), options.key ?? null]);
    let shared = this.#stores.get(key);
    if (!shared) {
      const store = new LiveStore(options.key);
      shared = { store, handles: 0, detach: () => {} };
      this.#stores.set(key, shared);
      shared.detach = this.#attach(of, true, null, (delivery) => {
        store.take(delivery);
        // the next one who asks may try again
        if (store.error !== null || store.state === 'ended') this.#stores.delete(key);
      });
    }
    const { store } = shared;
    clearTimeout(shared.linger);
    shared.handles++;
    return liveHandle<Item>(store, () => this.#release(key, shared));
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
        return this.#guard(() => this.#takers.get(effect.member)?.(effect.delivery));
      case 'send':
        return this.#socket?.send(JSON.stringify(effect.frame));
      case 'connect':
        return this.#connect(effect.socket);
      case 'close-socket':
        return this.#closeSocket();
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
        this.#options.onError?.(new Error(effect.message));
    }
  }

  #connect(number: number): void {
    let socket: SocketLike;
    try {
      socket = new (this.#options.WebSocket ?? WebSocket)(this.#url, subprotocol);
    } catch (error) {
      const reason = (error as Error).message;
      this.#dispatch({ type: 'socket-close', socket: number, code: 1006, reason });
      return;
    }
    this.#socket = socket;
    const on = (type: 'open' | 'message' | 'close' | 'error', event: (given: SocketEvent) => Event | null) =>
      socket.addEventListener(type, (given) => {
        const happened = this.#socket === socket ? event(given) : null;
        if (happened) this.#dispatch(happened);
      });
    on('open', () => ({ type: 'socket-open', socket: number }));
    on('message', ({ data }) => {
      const frame = parseFrame(data);
      if (frame) return { type: 'frame', socket: number, frame };
      return { type: 'socket-close', socket: number, code: 1007, reason: 'what came was no frame' };
    });
    on('close', ({ code = 1006, reason = '' }) => ({ type: 'socket-close', socket: number, code, reason }));
    on('error', () => null); // a close follows
  }

  #closeSocket(): void {
    const socket = this.#socket;
    this.#socket = null;
    socket?.close(1000);
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
      this.#dispatch({ type: 'token-failed', socket, message: (error as Error).message });
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
      const { onError } = this.#options;
      if (onError) onError(error as Error);
      else
        queueMicrotask(() => {
          throw error;
        });
    }
  }
}

function liveHandle<Item extends object>(store: LiveStore, release: () => void): LiveQuery<Item> {
  const ends = new Set<() => void>();
  let isOpen = true;
  return {
    rows: store.rows as ReadonlyMap<never, Item>,
    ready: store.ready,
    get version() {
      return store.version;
    },
    get state() {
      return store.state;
    },
    get error() {
      return store.error;
    },
    subscribe(callback) {
      const end = store.watch(callback);
      ends.add(end);
      return end;
    },
    close() {
      for (const end of ends) end();
      ends.clear();
      if (isOpen) release();
      isOpen = false;
    },
  };
}

function subject(table: string, { where, columns }: Pick<SubscribeOptions, 'where' | 'columns'>): Subject {
  return { table, ...(where === undefined ? {} : { where }), ...(columns === undefined ? {} : { columns }) };
}

function isLiveOptions(value: Filter | LiveOptions): value is LiveOptions {
  const { where, columns, key } = value as Record<string, unknown>;
  return Array.isArray(columns) || Array.isArray(key) || (typeof where === 'object' && where !== null);
}

function socketUrl(given: string | URL | undefined): string {
  const base = typeof document === 'undefined' ? undefined : document.baseURI;
  if (given === undefined && base === undefined) throw new TypeError('createPlank needs a url here');
  const url = new URL(given ?? 'ws', base);
  url.protocol = url.protocol.replace('http', 'ws');
  return url.href;
}

/** JSON, in which integers beyond 2^53 are bigints: rounded, two rows might have one key. Null: no frame. */
function parseFrame(data: unknown): ServerFrame | null {
  if (typeof data !== 'string') return null;
  try {
    const frame: unknown = /\d{16}/.test(data) ? JSON.parse(data, exact) : JSON.parse(data);
    return typeof (frame as { type?: unknown } | null)?.type === 'string' ? (frame as ServerFrame) : null;
  } catch {
    return null;
  }
}

function exact(_name: string, value: unknown, context?: { source?: string }): unknown {
  if (typeof value !== 'number' || Number.isSafeInteger(value) || !context?.source) return value;
  return /^-?\d+$/.test(context.source) ? BigInt(context.source) : value;
}
