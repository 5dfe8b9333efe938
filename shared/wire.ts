/**
 * The WebSocket protocol (PROTOCOL.md) as constants and types: actions, close codes, positions, frames. This file
 * imports nothing, because browsers load it with the SDK.
 */

export type RowAction = 'INSERT' | 'UPDATE' | 'DELETE' | 'TRUNCATE';

/** A change in plain mode. `id` is the primary key: a value, or an object if the key is composite. */
export interface ChangeMessage {
  table: string;
  action: RowAction;
  id: unknown;
  data: Record<string, unknown> | null;
  pos: string;
  /** present if the row is too large to be sent; then `data` is null */
  truncated?: true;
}

/**
 * The codes with which a gateway closes a WebSocket. 44xx: the fault is the client's, so the client must not connect
 * again. 45xx: the fault is the server's, so the client reconnects with jitter. Reasons have at most 123 bytes of
 * UTF-8.
 */
export const closeCodes = {
  tooLarge: 1009,
  restart: 1012,
  malformed: 4400,
  unauthorized: 4401,
  forbidden: 4403,
  noHello: 4408,
  positionGone: 4410,
  tooMany: 4429,
  internal: 4500,
  tooSlow: 4508,
} as const;

/** A place in the log. Clients get it as the text "e<epoch>.<seq>", and must not depend on the form of this text. */
export interface Position {
  epoch: number;
  seq: number;
}

export function formatPosition(position: Position): string {
  return `e${position.epoch}.${position.seq}`;
}

/** Parses a position. If the text is not a position, returns null. */
export function parsePosition(text: string): Position | null {
  const match = /^e(\d{1,10})\.(\d{1,15})$/.exec(text);
  return match ? { epoch: Number(match[1]), seq: Number(match[2]) } : null;
}

// ---------------------------------------------------------------------------------------------- plank.v1

/** The name of the subprotocol that has the frames below. A connection without this subprotocol is in plain mode. */
export const subprotocol = 'plank.v1';

export type Row = Record<string, unknown>;

/** A value that a filter compares with. The SDK sends a bigint as a string of digits. */
export type FilterValue = string | number | bigint | boolean | null;

export interface FilterComparison {
  eq?: FilterValue;
  ne?: FilterValue;
  gt?: FilterValue;
  gte?: FilterValue;
  lt?: FilterValue;
  lte?: FilterValue;
  in?: readonly FilterValue[];
  is?: null | 'not null';
}

/**
 * A row matches if all members of the object are true for the row. The name of a column that is called and, or, or not
 * is written as "column:and" ….
 */
export interface Filter {
  and?: readonly Filter[];
  or?: readonly Filter[];
  not?: Filter;
  [column: string]: FilterValue | FilterComparison | Filter | readonly Filter[] | undefined;
}

export interface HelloFrame {
  type: 'hello';
  /** a JWT; needed if the gateway checks tokens */
  token?: string;
}

/** Renews the token of the connection: the connection continues with another token of the same user. */
export interface AuthFrame {
  type: 'auth';
  id: number;
  token: string;
}

export interface SubscribeFrame {
  type: 'subscribe';
  /** a positive integer that the client chooses; the `ok` or `error` that answers has the same `id` */
  id: number;
  table: string;
  where?: Filter;
  /** the columns to send; default: all. The columns of the key are always sent. */
  columns?: readonly string[];
  /** the subscription begins with the changes after this position */
  from?: string;
  /** whether to begin with the rows; with `from`, only if that position is no longer kept */
  snapshot?: boolean;
  /** with `from`: the channel whose changes the client had up to that position */
  ch?: string;
}

export interface UnsubscribeFrame {
  type: 'unsubscribe';
  id: number;
  ch: string;
}

/** A ping for clients that cannot see WebSocket pings. The server answers with `pong`. */
export interface PingFrame {
  type: 'ping';
}

export type ClientFrame = HelloFrame | AuthFrame | SubscribeFrame | UnsubscribeFrame | PingFrame;

export interface WelcomeFrame {
  type: 'welcome';
  node: string;
  /** the name of this connection for operators: "gateway-2/17" */
  connection?: string;
  /** how often the server pings, in ms */
  ping_ms: number;
  /** how often the server sends `pos` to a quiet client while changes can reach the client, in ms; absent: never */
  pos_ms?: number;
  /** the position that this replica has reached */
  pos: string;
  /** the token's `sub`, its role, and how many seconds it is still valid; absent if the gateway checks no tokens */
  user?: string;
  role?: string;
  expires_in_s?: number;
}

/**
 * Answers the request `id`. The answer to `subscribe` has `ch`. The answer to `auth` has the values of the new token.
 */
export interface OkFrame {
  type: 'ok';
  id: number;
  ch?: string;
  /**
   * in the answer to `subscribe`: the columns of the primary key; by these columns, the `id` of a change names a row
   */
  key?: readonly string[];
  /** in the answer to `auth`: the new token's values, as in `welcome` */
  user?: string;
  role?: string;
  expires_in_s?: number;
}

export interface RowsFrame {
  type: 'rows';
  ch: string;
  rows: Row[];
  /** the primary keys of rows that are too large to be sent; these rows are not among `rows` */
  truncated?: unknown[];
  more: boolean;
}

/** Sent when the subscription has caught up with the log. */
export interface LiveFrame {
  type: 'live';
  ch: string;
  pos: string;
}

/** How a change affects the rows of a subscription: a row enters, changes or leaves them. */
export type Effect = 'add' | 'change' | 'remove';

export interface ChangeFrame {
  type: 'change';
  ch: string;
  effect: Effect;
  table: string;
  /** the operation in the database */
  action: RowAction;
  /** the primary key: a value, or an object if the key is composite; null if TRUNCATE removed all rows */
  id: unknown;
  /** absent in a `remove`; null if the row is too large to be sent */
  data?: Row | null;
  pos: string;
  tx: string;
  /** present on the last change of a transaction on this channel */
  last?: true;
  /** present if the row or a requested column is too large to be sent; then `data` is null */
  truncated?: true;
}

/** Every live subscription of this connection has received all changes up to this position. */
export interface PosFrame {
  type: 'pos';
  pos: string;
}

/**
 * `retention`: the changes after the client's position are no longer kept; `epoch`: the position belongs to a history
 * that no longer exists; `shape`: the table's columns, their types, its key or its name changed, or the filter cannot
 * judge a change of a large row; `rows`: rows changed without INSERT, UPDATE or DELETE; `access`: what the client may
 * see has changed, or `ch` was another channel.
 */
export type ResyncReason = 'retention' | 'epoch' | 'shape' | 'rows' | 'access';

/** Says that the client's rows are no longer valid. A subscription with `snapshot` gets the rows again. */
export interface ResyncFrame {
  type: 'resync';
  ch: string;
  reason: ResyncReason;
  /** the columns of the primary key from now on */
  key?: readonly string[];
  /** what to send as `ch` to resume from now on; absent: the `ch` of this message */
  resume_ch?: string;
  /** without `snapshot`: the changes after this position follow; absent: the changes after the next `live` follow */
  pos?: string;
}

/**
 * Announces that the replica will close this connection within `after_ms`. The client then reconnects without jitter.
 */
export interface DrainFrame {
  type: 'drain';
  after_ms: number;
}

export interface PongFrame {
  type: 'pong';
}

export type ProtocolErrorCode =
  | 'MALFORMED'
  | 'UNKNOWN_TABLE'
  | 'UNKNOWN_COLUMN'
  | 'FORBIDDEN'
  | 'INVALID_FILTER'
  | 'INVALID_POSITION'
  | 'ALREADY_SUBSCRIBED'
  | 'UNKNOWN_CHANNEL'
  | 'TOO_MANY_SUBSCRIPTIONS'
  | 'UNREADABLE'
  | 'UNAVAILABLE';

/** Reports that the request `id` failed, or that the subscription `ch` has ended. */
export interface ErrorFrame {
  type: 'error';
  id?: number;
  ch?: string;
  code: ProtocolErrorCode;
  message: string;
  /** whether the same request may succeed later */
  retry: boolean;
}

export type ServerFrame =
  | WelcomeFrame
  | OkFrame
  | RowsFrame
  | LiveFrame
  | ChangeFrame
  | PosFrame
  | ResyncFrame
  | DrainFrame
  | PongFrame
  | ErrorFrame;
