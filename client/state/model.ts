/**
 * The types between the state machine (machine.ts) and its shell (client.ts): the state, the events and the
 * effects.
 */
import type { ClientFrame, ServerFrame } from '../../shared/wire.ts';
import type { RowQuery } from '../values/row-query.ts';
import type { Delivery } from './delivery.ts';
import type { Freshness } from './freshness.ts';
import { limits } from './limits.ts';
import type { Group } from './stream.ts';

/**
 * The state of the connection; machine.ts describes each `status`. Times (`…At`) are in ms on the clock of
 * `performance.now()`. `socket` is the number of the socket: the client's first socket is 1.
 */
export type Link =
  | { readonly status: 'idle' }
  | {
      readonly status: 'connecting';
      readonly socket: number;
      readonly hasSocket: boolean;
      /** when the token was requested */
      readonly startedAt: number;
      readonly token?: string;
    }
  | { readonly status: 'opening'; readonly socket: number }
  | {
      readonly status: 'open';
      readonly socket: number;
      /** the name of the gateway */
      readonly node: string;
      /**
       * the name of this connection for operators: "gateway-2/17"; null if the server gave none
       */
      readonly connection: string | null;
      /** as whom the server serves this connection; null: the server checks no tokens */
      readonly viewer: Viewer | null;
      /** how often the server pings */
      readonly pingMs: number;
      readonly openedAt: number;
      /** when the last frame of any kind came */
      readonly receivedAt: number;
      /**
       * when the last frame came that was neither a `pong` nor a `pos`; null before the first one
       */
      readonly contentAt: number | null;
      readonly freshness: Freshness;
      /**
       * null: no ping waits for an answer. Otherwise a ping was sent, and if no frame comes until this time, the
       * connection is given up
       */
      readonly deadAt: number | null;
      /** when to connect again, if the server sent `drain`; otherwise null */
      readonly returnAt: number | null;
    }
  /** `waitMs`: how long this wait lasts */
  | { readonly status: 'waiting'; readonly waitMs: number }
  /** `code`: the server's close code; null: closed by the application */
  | { readonly status: 'closed'; readonly code: number | null; readonly reason: string };

/** The user of the token as the server names it. Without a token, `user` and `expiresAt` are null. */
export interface Viewer {
  /** `sub` of the token */
  readonly user: string | null;
  /** the role whose policies apply */
  readonly role: string;
  /** when the token expires */
  readonly expiresAt: number | null;
}

export interface State {
  readonly link: Link;
  /** the number of failed attempts since the last stable connection */
  readonly attempts: number;
  /** the number of hellos in a row whose token was refused */
  readonly refusals: number;
  /** whether the server of the last `welcome` checks tokens */
  readonly checksTokens: boolean;
  /** whether UNREACHABLE was reported and no connection has been open since then */
  readonly isUnreachable: boolean;
  /** the number of the last socket */
  readonly sockets: number;
  /** the number of the last request */
  readonly requests: number;
  /** by the key of the group's row query */
  readonly groups: ReadonlyMap<string, Group>;
  /** how long a request may stay unanswered while the server sends no other content, in ms */
  readonly answerMs: number;
}

export type Event =
  /** there is a subscription: the client connects if it is idle */
  | { type: 'start' }
  /** the application's token, requested by `get-token`: for a new connection, or to renew the token of an open one */
  | { type: 'token'; socket: number; token?: string }
  | { type: 'token-failed'; socket: number; message: string }
  | { type: 'socket-open'; socket: number }
  /** the WebSocket could not be created */
  | { type: 'socket-failed'; socket: number; message: string }
  | { type: 'frame'; socket: number; frame: ServerFrame }
  /** the socket has closed, or the server sent a message that is not a frame (code 1007) */
  | { type: 'socket-close'; socket: number; code: number; reason: string }
  | { type: 'timer'; name: string }
  /** the network is back, or the page is visible again */
  | { type: 'wake' }
  | { type: 'subscribe'; member: number; query: RowQuery; from: string | null; snapshot: boolean; maxRows?: number }
  | { type: 'unsubscribe'; member: number }
  | { type: 'close' };

/** `UNAUTHORIZED`, `FORBIDDEN`: closed for good because of the token; `CLOSED`: for another reason */
export type ReportCode = 'UNREACHABLE' | 'UNAUTHORIZED' | 'FORBIDDEN' | 'CLOSED';

export type Effect =
  | { type: 'get-token'; socket: number }
  | { type: 'connect'; socket: number }
  | { type: 'send'; frame: ClientFrame }
  /** closes the current socket if there is one, and ignores its events from now on */
  | { type: 'close-socket' }
  /** replaces the timer of that name */
  | { type: 'set-timer'; name: string; ms: number }
  | { type: 'clear-timer'; name: string }
  /** a delivery to one subscription of the application */
  | { type: 'deliver'; member: number; delivery: Delivery }
  /** the connection's state has changed */
  | { type: 'notify'; link: Link }
  /** a problem that belongs to no subscription; it has a code if an application may want to handle it */
  | { type: 'report'; message: string; code?: ReportCode };

/** The values that the shell passes to `reduce` with each event. */
export interface World {
  /** ms, of any clock that only goes forward */
  now: number;
  /** 0 ≤ random < 1 */
  random: number;
}

export const initialState: State = {
  link: { status: 'idle' },
  attempts: 0,
  refusals: 0,
  checksTokens: false,
  isUnreachable: false,
  sockets: 0,
  requests: 0,
  groups: new Map(),
  answerMs: limits.answerMs,
};
