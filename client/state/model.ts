/** What the SDK's brain knows, is told and asks for: the words between the reducer (connection-state.ts) and its shell. Pure. */
import type { ClientFrame, ServerFrame } from '../../shared/wire.ts';
import type { Subject } from '../values/canonical.ts';
import type { Freshness } from './freshness.ts';
import type { Delivery, Group } from './stream.ts';

export const limits = {
  /** from the token to `welcome` */
  connectMs: 10_000,
  minWaitMs: 500,
  maxWaitMs: 20_000,
  stableMs: 30_000,
  /** a peer is dead after so many times `ping_ms` without a frame */
  silence: 2.5,
  /** after so many times `pos_ms` without a change or a position, changes may not arrive */
  stale: 1.6,
  /** a timer that comes later than this was held up together with what it waits for: a hidden page, a machine that slept */
  heldUpMs: 1_000,
  /** how long a probe waits for its answer */
  probeMs: 5_000,
  /** a `drain` holds until so long after its time; then it was called off, and all who were told would come back at once */
  drainMs: 5_000,
  /** how long a request waits for its own, and for what comes before that, unless told otherwise */
  answerMs: 30_000,
};

export type Link =
  | { readonly status: 'idle' }
  | { readonly status: 'connecting'; readonly socket: number; readonly hasSocket: boolean; readonly token?: string }
  | { readonly status: 'opening'; readonly socket: number }
  | {
      readonly status: 'open';
      readonly socket: number;
      readonly node: string;
      /** what operators call this connection: "gateway-2/17" */
      readonly connection: string | null;
      readonly pingMs: number;
      readonly openedAt: number;
      readonly heardAt: number;
      /** when the last frame came that was more than a sign of life; null: none has */
      readonly broughtAt: number | null;
      readonly freshness: Freshness;
      /** a ping is out, and the peer is dead if nothing comes until then */
      readonly deadAt: number | null;
      /** the replica leaves: when to come back */
      readonly returnAt: number | null;
    }
  | { readonly status: 'waiting'; readonly waitMs: number }
  | { readonly status: 'closed'; readonly code: number | null; readonly reason: string };

export interface State {
  readonly link: Link;
  /** failed attempts since a connection was stable */
  readonly attempts: number;
  /** the application has been told that the server cannot be reached, and no connection has been open since */
  readonly isUnreachable: boolean;
  /** the number of the last socket and the last request */
  readonly sockets: number;
  readonly requests: number;
  readonly groups: ReadonlyMap<string, Group>;
  /** how long a request may stay unanswered while nothing else is brought */
  readonly answerMs: number;
}

export type Event =
  | { type: 'start' }
  | { type: 'token'; socket: number; token?: string }
  | { type: 'token-failed'; socket: number; message: string }
  | { type: 'socket-open'; socket: number }
  /** none could be made */
  | { type: 'socket-failed'; socket: number; message: string }
  | { type: 'frame'; socket: number; frame: ServerFrame }
  /** it has closed, or what came was no frame (1007) */
  | { type: 'socket-close'; socket: number; code: number; reason: string }
  | { type: 'timer'; name: string }
  /** the network came back, or the machine woke */
  | { type: 'wake' }
  | { type: 'subscribe'; member: number; subject: Subject; from: string | null; snapshot: boolean; maxRows?: number }
  | { type: 'unsubscribe'; member: number }
  | { type: 'close' };

export type Effect =
  | { type: 'get-token'; socket: number }
  | { type: 'connect'; socket: number }
  | { type: 'send'; frame: ClientFrame }
  /** forget the current socket, and close it if it is there */
  | { type: 'close-socket' }
  /** replaces the one of that name */
  | { type: 'set-timer'; name: string; ms: number }
  | { type: 'clear-timer'; name: string }
  | { type: 'deliver'; member: number; delivery: Delivery }
  | { type: 'notify'; link: Link }
  /** something that concerns no subscription; with a code where an application may want to tell it apart */
  | { type: 'report'; message: string; code?: 'UNREACHABLE' | 'CLOSED' };

export interface World {
  /** ms, of any clock that only goes forward */
  now: number;
  /** 0 ≤ random < 1 */
  random: number;
}

export const initialState: State = {
  link: { status: 'idle' },
  attempts: 0,
  isUnreachable: false,
  sockets: 0,
  requests: 0,
  groups: new Map(),
  answerMs: limits.answerMs,
};
