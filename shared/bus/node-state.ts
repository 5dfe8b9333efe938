/**
 * What the processes of a log report of themselves in the roster: one schema a role. A gateway's
 * report is made in gateway.ts, a listener's in listener.ts.
 *
 * During an upgrade processes of two versions run. A report that does not fit its schema is another
 * version's: the process is still listed (roster.nodes()), and counts for nothing else. A field
 * that a later version adds must therefore be optional or have a default.
 */
import { z } from 'zod';
import type { NodeStatus } from './roster.ts';

/** A gateway's counts, pace and lag. */
const gatewayFigures = {
  /**
   * when these were taken, in ms since 1970 by the gateway's own clock: rates are computed from two
   * reports
   */
  at: z.number(),
  /** the seq of the last change that it has broadcast */
  seq: z.number(),
  /** since its start: changes that it has broadcast, and how many times one was written to a client */
  passed: z.number(),
  delivered: z.number(),
  /**
   * from the capture of a change until it was written, over the last ten seconds, in ms; null: no
   * changes came
   */
  lag: z.object({ p50: z.number(), p99: z.number() }).nullable(),
  /** bytes that wait in the send buffers of clients */
  queuedBytes: z.number(),
  /** clients that do not keep up */
  slow: z.number(),
  /** bytes of memory */
  rss: z.number(),
};

const gatewayState = z.looseObject({
  ...gatewayFigures,
  ready: z.boolean(),
  /** why it is not ready */
  reason: z.string().optional(),
  draining: z.boolean(),
  connections: z.number(),
  /** connections that it accepts */
  limit: z.number(),
  /** connections that it asked to go elsewhere and that may not have arrived: see fair-share.ts */
  moving: z.number(),
  /** where it reads changes: tailing the stream, or reading the log in Postgres */
  changes: z.enum(['tailing', 'reading']),
  position: z.string(),
  /** how long the last canary took; null: none has come */
  canaryMs: z.number().nullable(),
  /** the next canary is overdue */
  canaryLate: z.boolean(),
  /** for how long it has been certain that changes can reach it, in ms; 0: it is not certain now */
  freshMs: z.number(),
  /** why that is not certain; null: it is */
  staleReason: z.string().nullable(),
});

const listenerState = z.looseObject({
  /** starting, standby, leading, disconnected, stopped */
  state: z.string(),
  // null unless it leads:
  /** the number of its time as leader */
  term: z.number().nullable(),
  /** the last seq that it gave to a change, and the epoch */
  headSeq: z.number().nullable(),
  epoch: z.number().nullable(),
  /** for how long Postgres has owed it an answer, in ms: its report about the lead is as old as that */
  owedMs: z.number().nullable(),
  /** how often it commits a canary, in ms; 0: never */
  canaryEveryMs: z.number().nullable(),
});

export type GatewayFigures = z.infer<z.ZodObject<typeof gatewayFigures>>;
export type GatewayState = z.infer<typeof gatewayState>;
export type ListenerState = z.infer<typeof listenerState>;

/** What a gateway reports; null for a listener, and for a gateway of another version. */
export function gatewayStateOf({ role, state }: NodeStatus): GatewayState | null {
  return role === 'gateway' ? (gatewayState.safeParse(state).data ?? null) : null;
}

/** What a listener reports; null for a gateway, and for a listener of another version. */
export function listenerStateOf({ role, state }: NodeStatus): ListenerState | null {
  return role === 'listener' ? (listenerState.safeParse(state).data ?? null) : null;
}

/** The gateways among these processes, with what they report. */
export function gatewaysIn<N extends NodeStatus>(nodes: readonly N[]): (N & { state: GatewayState })[] {
  return nodes.flatMap((node) => {
    const state = gatewayStateOf(node);
    return state ? [{ ...node, state }] : [];
  });
}

/** The leading listener among these processes; null if none is heard. */
export function leaderIn(nodes: readonly NodeStatus[]): (NodeStatus & { state: ListenerState }) | null {
  for (const node of nodes) {
    const state = listenerStateOf(node);
    if (state?.state === 'leading') return { ...node, state };
  }
  return null;
}
