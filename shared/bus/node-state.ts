/**
 * The reports of processes in the roster. There is one schema for each role. gateway.ts makes a gateway's report, and
 * listener.ts makes a listener's.
 *
 * During an upgrade, processes of two versions run. If a report does not fit its schema, it comes from another version.
 * The process of that report is still listed (roster.nodes()), but the report is not used. So if a later version adds a
 * field, the field must be optional or have a default.
 */
import { z } from 'zod';
import type { NodeStatus } from './roster.ts';

/** A gateway's counts, pace and lag. */
const gatewayFigures = {
  /**
   * when these figures were taken, in ms since 1970 by the gateway's own clock. Rates are computed from two
   * reports.
   */
  at: z.number(),
  /** the seq of the last change that the gateway has broadcast */
  seq: z.number(),
  /**
   * since the start of the gateway: how many changes the gateway has broadcast, and how many times it has written a
   * change to a client
   */
  passed: z.number(),
  delivered: z.number(),
  /**
   * the time from the capture of a change until it was written to clients, over the last ten seconds, in
   * ms; null: no changes came
   */
  lag: z.object({ p50: z.number(), p99: z.number() }).nullable(),
  /** bytes that wait in the send buffers of clients */
  queuedBytes: z.number(),
  /** the number of clients that do not keep up */
  slow: z.number(),
  /** bytes of memory */
  rss: z.number(),
};

const gatewayState = z.looseObject({
  ...gatewayFigures,
  ready: z.boolean(),
  /** why the gateway is not ready */
  reason: z.string().optional(),
  /** whether clients need tokens */
  auth: z.enum(['off', 'jwt']).optional(),
  draining: z.boolean(),
  connections: z.number(),
  /** the most connections that the gateway accepts */
  limit: z.number(),
  /**
   * the number of connections that this gateway asked to move to another gateway and that may not have arrived there
   * (see fair-share.ts)
   */
  moving: z.number(),
  /** where the gateway gets changes: `tailing` the stream, or `reading` the log in Postgres */
  changes: z.enum(['tailing', 'reading']),
  position: z.string(),
  /** how long the last canary took to reach the gateway, in ms; null: no canary has come */
  canaryMs: z.number().nullable(),
  /** whether the next canary is overdue */
  canaryLate: z.boolean(),
  /** for how many ms it has been certain that changes can reach the gateway; 0: it is not certain now */
  freshMs: z.number(),
  /** why it is not certain that changes can reach the gateway; null: it is certain */
  staleReason: z.string().nullable(),
});

const listenerState = z.looseObject({
  /** one of starting, standby, leading, disconnected, stopped */
  state: z.string(),
  // The fields below are null unless the listener leads.
  /** the term: the number of this listener's lead */
  term: z.number().nullable(),
  /** the last seq that the listener gave to a change, and the epoch of the log */
  headSeq: z.number().nullable(),
  epoch: z.number().nullable(),
  /**
   * for how many ms an answer of Postgres about the lead has been overdue. The report was true that long ago, and may
   * be wrong now.
   */
  owedMs: z.number().nullable(),
  /** how often the listener commits a canary, in ms; 0: never */
  canaryEveryMs: z.number().nullable(),
});

export type GatewayFigures = z.infer<z.ZodObject<typeof gatewayFigures>>;
export type GatewayState = z.infer<typeof gatewayState>;
export type ListenerState = z.infer<typeof listenerState>;

/** The report of a gateway; null for a listener, and for a gateway of another version. */
export function gatewayStateOf({ role, state }: NodeStatus): GatewayState | null {
  return role === 'gateway' ? (gatewayState.safeParse(state).data ?? null) : null;
}

/** The report of a listener; null for a gateway, and for a listener of another version. */
export function listenerStateOf({ role, state }: NodeStatus): ListenerState | null {
  return role === 'listener' ? (listenerState.safeParse(state).data ?? null) : null;
}

/** The gateways among these processes, with their reports. */
export function gatewaysIn<N extends NodeStatus>(nodes: readonly N[]): (N & { state: GatewayState })[] {
  return nodes.flatMap((node) => {
    const state = gatewayStateOf(node);
    return state ? [{ ...node, state }] : [];
  });
}

/** The listener among these processes that reports that it leads; null if there is none. */
export function leaderIn(nodes: readonly NodeStatus[]): (NodeStatus & { state: ListenerState }) | null {
  for (const node of nodes) {
    const state = listenerStateOf(node);
    if (state?.state === 'leading') return { ...node, state };
  }
  return null;
}
