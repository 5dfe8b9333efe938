/** The types of the SDK's API: what an application passes in and gets back. */
import type { ChangeFrame, Filter, ResyncReason, Row } from '../shared/wire.ts';
import type { LiveQuery } from './live/query.ts';
import type { RowKey } from './live/rows.ts';
import type { SocketLike } from './socket.ts';
import type { SubscriptionState } from './state/delivery.ts';
import type { Link } from './state/model.ts';
import type { PlankError } from './values/plank-error.ts';

/** `createPlank` throws a TypeError where one of these is invalid or unknown. */
export interface PlankOptions {
  /**
   * The address of a gateway's WebSocket: `ws(s)://…/ws` or `http(s)://…/ws`. In a browser it may
   * be relative to the page; `ws` unless given. Required in Node.
   */
  url?: string | URL;
  /** Sent with each hello. A function is called before each connection. */
  token?: string | (() => string | Promise<string>);
  /**
   * How long a request may stay unanswered, in ms, while no rows or changes arrive either. Then the
   * SDK opens another connection. 30,000 unless given.
   */
  answerTimeoutMs?: number;
  /** A class to use instead of the global `WebSocket`. */
  WebSocket?: new (
    url: string,
    protocol: string,
  ) => SocketLike;
  /**
   * Gets
   * - problems of the connection: a PlankError `UNREACHABLE`, once until a connection was open
   *   again, or `CLOSED`; an Error where the server does not answer or breaks the protocol
   * - the error that ends a live query, or a subscription without `onError`
   * - what a handler or a callback of the application throws
   *
   * Without `onError`, problems go to `console.error`, and what a handler throws becomes an
   * uncaught error.
   */
  onError?: (error: Error) => void;
}

/**
 * A row change as a subscription sees it. `data` is the row; absent where `effect` is `remove`.
 * Where `truncated` is true, the row is too large to be sent, and `data` has its key columns only.
 */
export type Change<Item extends object = Row> = Omit<ChangeFrame, 'type' | 'ch' | 'data'> & { data?: Item };

/** An unknown or invalid option throws a TypeError, and so does an option that is `undefined`. */
export interface SubscribeOptions {
  /** only rows that this filter admits; every row unless given */
  where?: Filter;
  /** only these columns, and those of the primary key; every column unless given */
  columns?: readonly string[];
  /** Begins with the rows (`onSnapshot`), and reads them again where changes were lost. */
  snapshot?: boolean;
  /**
   * Begins with the changes after this position. With `snapshot`, the rows are read only where the
   * position is no longer kept. Null: no position.
   */
  from?: string | null;
}

/** What a handler throws goes to `onError` of `createPlank`, and stops no other handler. */
export interface Handlers<Item extends object = Row> {
  onChange?: (change: Change<Item>) => void;
  /** All rows, instead of all that came before: at the beginning, and after each resync. */
  onSnapshot?: (rows: readonly Item[]) => void;
  /** Changes are missing. With `snapshot` the rows follow, otherwise the changes from now on. */
  onResync?: (reason: ResyncReason) => void;
  /**
   * `staleSince`: while the state is `stale`, when the server last confirmed that changes can
   * arrive; otherwise null.
   */
  onState?: (state: SubscriptionState, staleSince: Date | null) => void;
  /** The server has refused or ended the subscription; `error.code` tells why. */
  onError?: (error: PlankError) => void;
}

export interface Subscription {
  /**
   * The position up to which all changes have been handled; pass it as `from` to go on there. Null
   * where there is none: before the first, from a snapshot until `live`, and after a resync.
   */
  position(): string | null;
  readonly state: SubscriptionState;
  /** while `state` is `stale`: when the server last confirmed that changes can arrive; or null */
  readonly staleSince: Date | null;
  /** No handler is called after this. */
  unsubscribe(): void;
}

/** An unknown or invalid option throws a TypeError, and so does an option that is `undefined`. */
export interface ChangesOptions {
  /** only rows that this filter admits; every row unless given */
  where?: Filter;
  /** only these columns, and those of the primary key; every column unless given */
  columns?: readonly string[];
  /**
   * Begins with the changes after this position. Null, or not given: with the changes from now on.
   */
  from?: string | null;
  /**
   * How many changes may wait for the consumer; 1,000 unless given. At this bound the subscription
   * pauses.
   */
  bufferSize?: number;
  /** Its abort ends the iteration. */
  signal?: AbortSignal;
}

/**
 * Changes in the order of their positions. The iteration throws a PlankError: `RESYNC` where
 * changes are missing, `CLOSED` where the server closed the connection for good, or the code of a
 * refusal. It waits while there is no connection.
 */
export interface Changes<Item extends object = Row> extends AsyncIterableIterator<Change<Item>, undefined> {
  /**
   * The position up to which all changes are handled; a change is handled when the next one is
   * requested. It advances also where no change of these rows happens: store it now and then, so
   * that the place of a quiet consumer stays within the retention. Null before there is one.
   */
  position(): string | null;
}

export interface LiveOptions {
  /** only rows that this filter admits; every row unless given */
  where?: Filter;
  /** only these columns, and those of the primary key; every column unless given */
  columns?: readonly string[];
  /** The columns of the primary key, where the server does not send them; `['id']` unless given. */
  key?: readonly string[];
  /** With more rows, the query ends with the error `TOO_MANY_ROWS`; 100,000 unless given. */
  maxRows?: number;
}

/** An attached table. Each method throws a TypeError where an argument is invalid. */
export interface Table<Item extends object = Row> {
  readonly name: string;
  subscribe(options: SubscribeOptions, handlers: Handlers<Item>): Subscription;
  /** Subscribes at once, before the first `next`. */
  changes(options?: ChangesOptions): Changes<Item>;
  /**
   * The rows that a filter admits, kept current; every row without a filter.
   * @param where the filter. An object with a `where` object, a `columns` array or a `key` array is
   *   taken as options.
   * @param callback called whenever the rows, their state or their error may have changed
   */
  live(where?: Filter | LiveOptions, callback?: (rows: ReadonlyMap<RowKey, Item>) => void): LiveQuery<Item>;
}

/** One connection, and the subscriptions that share it. It connects with the first subscription. */
export interface Plank {
  table<Item extends object = Row>(name: string): Table<Item>;
  readonly state: Link['status'];
  /**
   * Calls back with each state of the connection from now on. Returns a function that ends the
   * calls.
   */
  onState(callback: (link: Link) => void): () => void;
  /** Ends the connection and all subscriptions for good. */
  close(): void;
}
