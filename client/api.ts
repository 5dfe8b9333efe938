/** What an application says to the SDK and gets from it. Types only. */
import type { ChangeFrame, Filter, ResyncReason, Row } from '../shared/wire.ts';
import type { PlankError } from './change-iterator.ts';
import type { LiveQuery } from './live/query.ts';
import type { SocketLike } from './socket.ts';
import type { Link } from './state/model.ts';
import type { SubscriptionState } from './state/stream.ts';

export interface PlankOptions {
  /** ws(s):// or http(s)://…/ws; in a browser it may be relative, and is `ws` beside the page unless given */
  url?: string | URL;
  /** sent with each hello; a function is asked anew before each connection */
  token?: string | (() => string | Promise<string>);
  /** how long a request may stay unanswered, while nothing else comes either, before the connection is given up for another; 30,000 unless given */
  answerTimeoutMs?: number;
  /** instead of the global one */
  WebSocket?: new (
    url: string,
    protocol: string,
  ) => SocketLike;
  /**
   * Problems of no subscription (UNREACHABLE, once for each time that no connection can be had; CLOSED), errors that end a subscription without
   * a handler or a live query, and what handlers throw. Unless given, these go to the console, and what handlers throw is thrown where nobody
   * catches it.
   */
  onError?: (error: Error) => void;
}

/** One row change as a subscription sees it. Where it is `truncated`, `data` has the key columns only. */
export type Change<Item extends object = Row> = Omit<ChangeFrame, 'type' | 'ch' | 'data'> & { data?: Item };

export interface SubscribeOptions {
  where?: Filter;
  columns?: readonly string[];
  /** begin with the rows, and read them anew where changes were lost */
  snapshot?: boolean;
  /** begin behind this position; it wins over the rows while it is kept. Null, as without it: there is none */
  from?: string | null;
}

export interface Handlers<Item extends object = Row> {
  onChange?: (change: Change<Item>) => void;
  /** every row there is: replaces what was known, at first and after each resync */
  onSnapshot?: (rows: readonly Item[]) => void;
  /** changes are missing here; rows follow where a snapshot was asked for */
  onResync?: (reason: ResyncReason) => void;
  /** `staleSince`: while the state is `stale`, when something last said that changes can arrive */
  onState?: (state: SubscriptionState, staleSince: Date | null) => void;
  /** the subscription has ended */
  onError?: (error: PlankError) => void;
}

export interface Subscription {
  /** of the last change that was handled, or that everything up to has come; null before that. Give it as `from` to go on. */
  position(): string | null;
  readonly state: SubscriptionState;
  /** while the state is `stale`, when something last said that changes can arrive; else null */
  readonly staleSince: Date | null;
  unsubscribe(): void;
}

export interface ChangesOptions {
  where?: Filter;
  columns?: readonly string[];
  /** begin behind this position; null, as without it: now */
  from?: string | null;
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
  /** with more rows it ends with the error TOO_MANY_ROWS, 100,000 unless given */
  maxRows?: number;
}

export interface Table<Item extends object = Row> {
  readonly name: string;
  subscribe(options: SubscribeOptions, handlers: Handlers<Item>): Subscription;
  /** Subscribes at once. */
  changes(options?: ChangesOptions): Changes<Item>;
  /**
   * An object with a `where` object, a `columns` or a `key` array counts as options, any other as the filter. Calls back whenever the
   * rows, their state or their error may have changed.
   */
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
