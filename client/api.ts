/** The types of the SDK's API: the values that an application passes to the SDK and gets from it. */
import type { ChangeFrame, Filter, ResyncReason, Row } from '../shared/wire.ts';
import type { LiveQuery } from './live/query.ts';
import type { RowKey } from './live/rows.ts';
import type { SocketLike } from './socket.ts';
import type { SubscriptionState } from './state/delivery.ts';
import type { Link } from './state/model.ts';
import type { PlankError } from './values/plank-error.ts';

/** Options of `createPlank`. If an option is invalid or unknown, `createPlank` throws a TypeError. */
export interface PlankOptions {
  /**
   * The address of a gateway's WebSocket: `ws(s)://…/ws` or `http(s)://…/ws`. In a browser, the address may be
   * relative to the page, and the default is `ws`. In Node, the address is required.
   */
  url?: string | URL;
  /**
   * A JWT, which the SDK sends with each hello. If `token` is a function, the SDK calls it before each connection, and
   * again after 80 % of the lifetime of the current token. If no new token comes, the connection stays open until the
   * current token expires.
   */
  token?: string | (() => string | Promise<string>);
  /**
   * The longest time without an answer to a request, in ms. If neither the answer nor any rows or changes arrive in
   * this time, the SDK opens another connection. Default: 30,000.
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
 * A row change that a subscription receives. `data` is the row; if `effect` is `remove`, `data` is absent. If
 * `truncated` is true, the row is too large to be sent, and `data` has only the row's key columns.
 */
export type Change<Item extends object = Row> = Omit<ChangeFrame, 'type' | 'ch' | 'data'> & { data?: Item };

/** Options of `subscribe`. If an option is unknown, invalid or `undefined`, `subscribe` throws a TypeError. */
export interface SubscribeOptions {
  /** Only rows that this filter admits are sent. Default: every row. */
  where?: Filter;
  /** Only these columns and the columns of the primary key are sent. Default: every column. */
  columns?: readonly string[];
  /** Whether to begin with the rows (`onSnapshot`), and to read them again if changes were lost. Default: false. */
  snapshot?: boolean;
  /**
   * The subscription begins with the changes after this position. If the server no longer keeps the position, the SDK
   * calls `onResync`. With `snapshot`, the rows are read only in that case. Null: the subscription begins without a
   * position.
   */
  from?: string | null;
}

/**
 * The functions that the SDK calls for a subscription. If a handler throws, the SDK passes the error to the option
 * `onError` of `createPlank`, and still calls the other handlers.
 */
export interface Handlers<Item extends object = Row> {
  onChange?: (change: Change<Item>) => void;
  /** Called with all rows: at the beginning and after each resync. These rows replace all earlier rows and changes. */
  onSnapshot?: (rows: readonly Item[]) => void;
  /** Called if changes are missing. With `snapshot`, `onSnapshot` follows; otherwise the changes from now on follow. */
  onResync?: (reason: ResyncReason) => void;
  /**
   * Called with each new state. If the state is `stale`, `staleSince` is the time when the server last confirmed that
   * changes can arrive; otherwise `staleSince` is null.
   */
  onState?: (state: SubscriptionState, staleSince: Date | null) => void;
  /** Called if the server has refused or ended the subscription. `error.code` is the reason. */
  onError?: (error: PlankError) => void;
}

export interface Subscription {
  /**
   * The position up to which all changes have been handled. To continue after this position later, pass it as `from`.
   * Null if there is no such position: before the first position arrives, after a resync, and after a snapshot until
   * the state is `live`.
   */
  position(): string | null;
  readonly state: SubscriptionState;
  /** If `state` is `stale`: the time when the server last confirmed that changes can arrive; otherwise null. */
  readonly staleSince: Date | null;
  /** Ends the subscription. No handler is called after this call. */
  unsubscribe(): void;
}

/** Options of `changes`. If an option is unknown, invalid or `undefined`, `changes` throws a TypeError. */
export interface ChangesOptions {
  /** Only changes of rows that this filter admits are sent. Default: every row. */
  where?: Filter;
  /** Only these columns and the columns of the primary key are sent. Default: every column. */
  columns?: readonly string[];
  /**
   * The iteration begins with the changes after this position. Null or absent: it begins with the changes from now on.
   */
  from?: string | null;
  /** How many changes may wait for the consumer. At this bound, the subscription pauses. Default: 1,000. */
  bufferSize?: number;
  /** When this signal aborts, the iteration ends. */
  signal?: AbortSignal;
}

/**
 * An iterator over changes in the order of their positions. The iteration throws a PlankError if it cannot go on. The
 * error's code is `RESYNC` if changes are missing, `CLOSED`, `UNAUTHORIZED` or `FORBIDDEN` if the server closed the
 * connection for good, or the server's error code if the server refused the subscription. While there is no connection,
 * the iteration waits.
 */
export interface Changes<Item extends object = Row> extends AsyncIterableIterator<Change<Item>, undefined> {
  /**
   * The position up to which all changes are handled. A change counts as handled when the consumer requests the next
   * change. The position advances even while the rows of this iterator do not change. So a consumer of rarely changed
   * rows should store the position now and then. Otherwise the server may delete the changes after the stored position,
   * because they are past the retention. Null before the first position.
   */
  position(): string | null;
}

export interface LiveOptions {
  /** Only rows that this filter admits are kept. Default: every row. */
  where?: Filter;
  /** Only these columns and the columns of the primary key are sent. Default: every column. */
  columns?: readonly string[];
  /** The columns of the primary key. They are used only if the server does not send them. Default: `['id']`. */
  key?: readonly string[];
  /**
   * The largest number of rows. If there are more rows, the query ends with the error `TOO_MANY_ROWS`. Default:
   * 100,000.
   */
  maxRows?: number;
}

/** An attached table. If an argument is invalid, each method throws a TypeError. */
export interface Table<Item extends object = Row> {
  readonly name: string;
  subscribe(options: SubscribeOptions, handlers: Handlers<Item>): Subscription;
  /** Subscribes at once, without waiting for the first `next`. */
  changes(options?: ChangesOptions): Changes<Item>;
  /**
   * Returns the rows that a filter admits, and keeps them current. Without a filter, these are all rows.
   * @param where the filter. If the object has a `where` object, a `columns` array or a `key` array, the object is
   *   taken as options instead.
   * @param callback called whenever the rows, their state or their error may have changed
   */
  live(where?: Filter | LiveOptions, callback?: (rows: ReadonlyMap<RowKey, Item>) => void): LiveQuery<Item>;
}

/** One connection and the subscriptions that share it. The connection is opened when the first subscription is made. */
export interface Plank {
  table<Item extends object = Row>(name: string): Table<Item>;
  readonly state: Link['status'];
  /** Calls `callback` with each later state of the connection. Returns a function that ends these calls. */
  onState(callback: (link: Link) => void): () => void;
  /** Ends the connection and all subscriptions for good. */
  close(): void;
}
