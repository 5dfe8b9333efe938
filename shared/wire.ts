/**
 * The words of the WebSocket protocol: actions, close codes, positions. Constants and types; imports nothing, so that the
 * SDK can share it.
 */

export type RowAction = 'INSERT' | 'UPDATE' | 'DELETE' | 'TRUNCATE';

/** A change as plain-mode clients get it. `id` is the primary key: a value, or an object for a composite one. */
export interface ChangeMessage {
  table: string;
  action: RowAction;
  id: unknown;
  data: Record<string, unknown> | null;
  pos: string;
  /** the row is too large to be sent: `data` is null */
  truncated?: true;
}

/** 44xx: the client's fault, stop. 45xx: ours, come back with jitter. Reasons are at most 123 bytes of UTF-8. */
export const closeCodes = {
  tooLarge: 1009,
  restart: 1012,
  malformed: 4400,
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

/** Null where the text is no position. */
export function parsePosition(text: string): Position | null {
  const match = /^e(\d{1,10})\.(\d{1,15})$/.exec(text);
  return match ? { epoch: Number(match[1]), seq: Number(match[2]) } : null;
}

// ---------------------------------------------------------------------------------------------- plank.v1

/** The subprotocol that asks for the frames below; without it a connection is in plain mode. */
export const subprotocol = 'plank.v1';

export type Row = Record<string, unknown>;

/** The SDK sends a bigint as its digits. */
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

/** All of an object's members hold at once. A column named and, or, not is written "column:and" …. */
export interface Filter {
  and?: readonly Filter[];
  or?: readonly Filter[];
  not?: Filter;
  [column: string]: FilterValue | FilterComparison | Filter | readonly Filter[] | undefined;
}

export interface HelloFrame {
  type: 'hello';
  /** kept for authentication */
  token?: string;
}

export interface SubscribeFrame {
  type: 'subscribe';
  /** a positive integer of the client's choice; the `ok` or `error` carries the same */
  id: number;
  table: string;
  where?: Filter;
  /** those of the key are always sent */
  columns?: readonly string[];
  /** begin behind this position */
  from?: string;
  /** begin with the rows; with `from`, where that is no longer kept */
  snapshot?: boolean;
}

export interface UnsubscribeFrame {
  type: 'unsubscribe';
  id: number;
  ch: string;
}

/** For clients that cannot see the WebSocket's own. */
export interface PingFrame {
  type: 'ping';
}

export type ClientFrame = HelloFrame | SubscribeFrame | UnsubscribeFrame | PingFrame;

export interface WelcomeFrame {
  type: 'welcome';
  node: string;
  /** names this connection to operators: "gateway-2/17" */
  connection?: string;
  /** how often the server pings, in ms */
  ping_ms: number;
  /** how often the server says a position (`pos`) to a quiet client, in ms, while changes can reach it; absent: never */
  pos_ms?: number;
  /** where this replica is */
  pos: string;
}

/** Answers the request `id`; `ch` is there where that was a subscribe. */
export interface OkFrame {
  type: 'ok';
  id: number;
  ch?: string;
  /** of a subscribe: the columns of the primary key, by which rows and the ids of changes fit together */
  key?: readonly string[];
}

export interface RowsFrame {
  type: 'rows';
  ch: string;
  rows: Row[];
  /** the primary keys of rows that are too large to be sent, and not among `rows` */
  truncated?: unknown[];
  more: boolean;
}

/** The subscription has arrived at the present. */
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
  /** the primary key: a value, or an object for a composite one; null where every row goes (TRUNCATE) */
  id: unknown;
  /** absent of a `remove`; null where the row is too large to be sent */
  data?: Row | null;
  pos: string;
  tx: string;
  /** the last change of its transaction on this channel; absent otherwise */
  last?: true;
  /** the row, or one of the columns that are wanted, is too large to be sent: `data` is null */
  truncated?: true;
}

/** Every live subscription of this connection has everything up to here. */
export interface PosFrame {
  type: 'pos';
  pos: string;
}

/** What came next is no longer kept; it belongs to a history that is no more; the table's columns changed; its rows did, without changes. */
export type ResyncReason = 'retention' | 'epoch' | 'shape' | 'rows';

/** The picture is void; a subscription with `snapshot` gets a fresh one by itself. */
export interface ResyncFrame {
  type: 'resync';
  ch: string;
  reason: ResyncReason;
  /** the columns of the primary key from here on */
  key?: readonly string[];
  /** without `snapshot`: the changes behind this position follow; absent: those behind the next `live` */
  pos?: string;
}

/** The replica leaves: come back after so long. */
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
  /** the same may work later */
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
