/** The types of the SDK's API: what an application passes in and gets back. */
import type { ChangeFrame, Filter, ResyncReason, Row } from '../shared/wire.ts';
import type { LiveQuery } from './live/query.ts';
import type { RowKey } from './live/rows.ts';
import type { SocketLike } from './socket.ts';
import type { SubscriptionState } from './state/delivery.ts';
import type { Link } from './state/model.ts';
import type { PlankError } from './values/plank-error.ts';

/** If an option is invalid or unknown, `createPlank` throws a TypeError. */
export interface PlankOptions {
  /**
   * The address of a gateway's WebSocket: `ws(s)://…/ws` or `http(s)://…/ws`. In a browser, the address may be
   * relative to the page, and the default is `ws`. In Node, the address is required.
   */
  url?: string | URL;
  /**
   * A JWT, which the SDK sends with each hello. If a function is given, the SDK calls it before each connection,
   * and again after 80 % of the token's lifetime. If that second call fails, the connection stays open until the
   * token expires.
   */
  token?: string | (() => string | Promise<string>);
  /**
   * If a request stays unanswered for this long (in ms), and no rows or changes arrive either, the SDK opens
   * another connection. Default: 30,000.
   */
  answerTimeoutMs?: number;
  /** A class to use instead of the global `WebSocket`. */
  WebSocket?: new (
    url: string,
    protocol: string,
  ) => SocketLike;
  /**
   * The SDK calls this function with
   * - problems of the connection. A PlankError `UNREACHABLE`: no connection can be made (reported
   *   once, and again only after a connection was open). A PlankError `UNAUTHORIZED`, `FORBIDDEN` or `CLOSED`:
   *   the server closed the connection for good. An Error: the server does not answer or breaks the protocol.
   * - the error that ends a live query, or a subscription without an `onError` handler
   * - errors that a handler or a callback of the application throws
   *
   * Without this function, the SDK writes problems to `console.error`, and errors that a handler
   * throws become uncaught errors.
   */
  onError?: (error: Error) => void;
}

/**
 * A row change as a subscription sees it. `data` is the row; if `effect` is `remove`, `data` is absent. If
 * `truncated` is true, the row is too large to be sent, and `data` has only the row's key columns.
 */
export type Change<Item extends object = Row> = Omit<ChangeFrame, 'type' | 'ch' | 'data'> & { data?: Item };

/** An unknown or invalid option throws a TypeError, and so does an option that is `undefined`. */
export interface SubscribeOptions {
  /** Only rows that this filter admits. Default: every row. */
  where?: Filter;
  /** Only these columns and the columns of the primary key. Default: every column. */
  columns?: readonly string[];
  /** Whether to begin with the rows (`onSnapshot`), and to read them again if changes were lost. Default: false. */
  snapshot?: boolean;
  /**
   * The subscription begins with the changes after this position. With `snapshot`, the rows are read only if the
   * server no longer keeps the position. Null: no position.
   */
  from?: string | null;
}

/**
 * If a handler throws, the SDK passes the error to the option `onError` of `createPlank`. The other handlers are
 * still called.
 */
export interface Handlers<Item extends object = Row> {
  onChange?: (change: Change<Item>) => void;
  /** Called with all rows, at the beginning and after each resync. They replace all earlier rows and changes. */
  onSnapshot?: (rows: readonly Item[]) => void;
  /** Called if changes are missing. With `snapshot`, the rows follow; otherwise the changes from now on. */
  onResync?: (reason: ResyncReason) => void;
  /**
   * `staleSince`: if the state is `stale`, the time when the server last confirmed that changes can arrive;
   * otherwise null.
   */
  onState?: (state: SubscriptionState, staleSince: Date | null) => void;
  /** The server has refused or ended the subscription. `error.code` is the reason. */
  onError?: (error: PlankError) => void;
}

export interface Subscription {
  /**
   * The position up to which all changes have been handled. To continue from there, pass it as `from`. Null if
   * there is none: before the first position, after a snapshot until the state is `live`, and after a resync.
   */
  position(): string | null;
  readonly state: SubscriptionState;
  /** If `state` is `stale`: the time when the server last confirmed that changes can arrive; otherwise null. */
  readonly staleSince: Date | null;
  /** Ends the subscription. No handler is called after this call. */
  unsubscribe(): void;
}

/** An unknown or invalid option throws a TypeError, and so does an option that is `undefined`. */
export interface ChangesOptions {
  /** Only rows that this filter admits. Default: every row. */
  where?: Filter;
  /** Only these columns and the columns of the primary key. Default: every column. */
  columns?: readonly string[];
  /** The iteration begins with the changes after this position. Null or not given: with the changes from now on. */
  from?: string | null;
  /** How many changes may wait for the consumer. At this bound, the subscription pauses. Default: 1,000. */
  bufferSize?: number;
  /** When this signal aborts, the iteration ends. */
  signal?: AbortSignal;
}

/**
 * Changes in the order of their positions. The iteration throws a PlankError with the code `RESYNC` if changes are
 * missing, `CLOSED` if the server closed the connection for good, or the server's error code if the server refused
 * the subscription. While there is no connection, the iteration waits.
 */
export interface Changes<Item extends object = Row> extends AsyncIterableIterator<Change<Item>, undefined> {
  /**
   * The position up to which all changes are handled. A change is handled when the next change is requested. The
   * position advances even if these rows do not change. So a consumer of rarely changed rows should store the
   * position now and then; otherwise the stored position falls out of the retention. Null before the first
   * position.
   */
  position(): string | null;
}

export interface LiveOptions {
  /** Only rows that this filter admits. Default: every row. */
  where?: Filter;
  /** Only these columns and the columns of the primary key. Default: every column. */
  columns?: readonly string[];
  /** The columns of the primary key. They are used only if the server does not send them. Default: `['id']`. */
  key?: readonly string[];
  /** If there are more rows than this, the query ends with the error `TOO_MANY_ROWS`. Default: 100,000. */
  maxRows?: number;
}

/** An attached table. If an argument is invalid, each method throws a TypeError. */
export interface Table<Item extends object = Row> {
  readonly name: string;
  subscribe(options: SubscribeOptions, handlers: Handlers<Item>): Subscription;
  /** Subscribes at once, without waiting for the first `next`. */
  changes(options?: ChangesOptions): Changes<Item>;
  /**
   * The rows that a filter admits, kept current. Without a filter: every row.
   * @param where the filter. If the object has a `where` object, a `columns` array or a `key` array, it is
   *   taken as options instead.
   * @param callback called whenever the rows, their state or their error may have changed
   */
  live(where?: Filter | LiveOptions, callback?: (rows: ReadonlyMap<RowKey, Item>) => void): LiveQuery<Item>;
}

/** One connection and the subscriptions that share it. The connection is opened when the first subscription is made. */
export interface Plank {
  table<Item extends object = Row>(name: string): Table<Item>;
  readonly state: Link['status'];
  /**
   * From now on, calls `callback` with each new state of the connection. Returns a function that ends the calls.
   */
  onState(callback: (link: Link) => void): () => void;
  /** Ends the connection and all subscriptions for good. */
  close(): void;
}
