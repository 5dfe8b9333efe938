/**
 * The WebSocket protocol (PROTOCOL.md) as constants and types: actions, close codes, positions, frames. It imports
 * nothing, as the SDK uses it too.
 */

export type RowAction = 'INSERT' | 'UPDATE' | 'DELETE' | 'TRUNCATE';

/** A change in plain mode. `id` is the primary key: a value, or an object for a composite one. */
export interface ChangeMessage {
  table: string;
  action: RowAction;
  id: unknown;
  data: Record<string, unknown> | null;
  pos: string;
  /** the row is too large to be sent: `data` is null */
  truncated?: true;
}

/**
 * 44xx: the client's fault, so the client must not retry. 45xx: the server's fault, so the client
 * reconnects with jitter. Reasons have at most 123 bytes of UTF-8.
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

/** A place in the log. Clients see "e<epoch>.<seq>" and treat it as opaque. */
export interface Position {
  epoch: number;
  seq: number;
}

export function formatPosition(position: Position): string {
  return `e${position.epoch}.${position.seq}`;
}

/** Null if the text is not a position. */
export function parsePosition(text: string): Position | null {
  const match = /^e(\d{1,10})\.(\d{1,15})$/.exec(text);
  return match ? { epoch: Number(match[1]), seq: Number(match[2]) } : null;
}

// ---------------------------------------------------------------------------------------------- plank.v1

/** The subprotocol with the frames below. A connection without it is in plain mode. */
export const subprotocol = 'plank.v1';

export type Row = Record<string, unknown>;

/** The SDK sends a bigint as a string of digits. */
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

/** All members of an object must be true. A column with the name and, or, not is written as "column:and" …. */
export interface Filter {
  and?: readonly Filter[];
  or?: readonly Filter[];
  not?: Filter;
  [column: string]: FilterValue | FilterComparison | Filter | readonly Filter[] | undefined;
}

export interface HelloFrame {
  type: 'hello';
  /** a JWT, where the gateway needs one */
  token?: string;
}

/** Goes on with another token of the same user. */
export interface AuthFrame {
  type: 'auth';
  id: number;
  token: string;
}

export interface SubscribeFrame {
  type: 'subscribe';
  /** a positive integer of the client's choice; the `ok` or `error` carries the same */
  id: number;
  table: string;
  where?: Filter;
  /** default: all; the columns of the key are always sent */
  columns?: readonly string[];
  /** begin after this position */
  from?: string;
  /** begin with the rows; with `from`, only if that position is no longer kept */
  snapshot?: boolean;
}

export interface UnsubscribeFrame {
  type: 'unsubscribe';
  id: number;
  ch: string;
}

/** For clients that cannot see WebSocket pings. */
export interface PingFrame {
  type: 'ping';
}

export type ClientFrame = HelloFrame | AuthFrame | SubscribeFrame | UnsubscribeFrame | PingFrame;

export interface WelcomeFrame {
  type: 'welcome';
  node: string;
  /** names this connection to operators: "gateway-2/17" */
  connection?: string;
  /** how often the server pings, in ms */
  ping_ms: number;
  /** how often the server sends a `pos` frame to a quiet client while changes can reach it, in ms; absent: never */
  pos_ms?: number;
  /** the position of this replica */
  pos: string;
  /** of the token: its `sub`, its role, and for how many seconds it is valid; absent where no token is needed */
  user?: string;
  role?: string;
  expires_in_s?: number;
}

/** Answers the request `id`. The answer to a subscribe has `ch`; that to an auth says what the new token holds. */
export interface OkFrame {
  type: 'ok';
  id: number;
  ch?: string;
  /** for a subscribe: the columns of the primary key, which relate the `id` of changes to rows */
  key?: readonly string[];
  /** for an auth, as in `welcome` */
  user?: string;
  role?: string;
  expires_in_s?: number;
}

export interface RowsFrame {
  type: 'rows';
  ch: string;
  rows: Row[];
  /** the primary keys of rows that are too large to be sent and so not among `rows` */
  truncated?: unknown[];
  more: boolean;
}

/** The subscription has caught up with the log. */
export interface LiveFrame {
  type: 'live';
  ch: string;
  pos: string;
}

/** What a change does to the rows that a subscription sees. */
export type Effect = 'add' | 'change' | 'remove';

export interface ChangeFrame {
  type: 'change';
  ch: string;
  effect: Effect;
  table: string;
  /** what the database did */
  action: RowAction;
  /** the primary key: a value, or an object for a composite one; null if every row is removed (TRUNCATE) */
  id: unknown;
  /** absent in a `remove`; null if the row is too large to be sent */
  data?: Row | null;
  pos: string;
  tx: string;
  /** the last change of its transaction on this channel; absent otherwise */
  last?: true;
  /** the row, or a requested column, is too large to be sent: `data` is null */
  truncated?: true;
}

/** Every live subscription of this connection has received everything up to here. */
export interface PosFrame {
  type: 'pos';
  pos: string;
}

/**
 * `retention`: the following changes are no longer kept; `epoch`: the position is of a history that no longer exists;
 * `shape`: the table's columns changed; `rows`: its rows changed without INSERT, UPDATE or DELETE.
 */
export type ResyncReason = 'retention' | 'epoch' | 'shape' | 'rows';

/** The client's rows are invalid. A subscription with `snapshot` gets the rows again. */
export interface ResyncFrame {
  type: 'resync';
  ch: string;
  reason: ResyncReason;
  /** the columns of the primary key from now on */
  key?: readonly string[];
  /** without `snapshot`: the changes after this position follow; absent: the changes after the next `live` */
  pos?: string;
}

/** The replica will close this connection within `after_ms`. Reconnect then. */
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
  | 'INVALID_FILTER'
  | 'INVALID_POSITION'
  | 'ALREADY_SUBSCRIBED'
  | 'UNKNOWN_CHANNEL'
  | 'TOO_MANY_SUBSCRIPTIONS'
  | 'UNREADABLE'
  | 'UNAVAILABLE';

/** The request `id` failed, or the subscription `ch` has ended. */
export interface ErrorFrame {
  type: 'error';
  id?: number;
  ch?: string;
  code: ProtocolErrorCode;
  message: string;
  /** the same request may succeed later */
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
