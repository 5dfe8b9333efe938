/** What a gateway says of itself in the roster, for the console of whatever replica somebody looks at: its counts, pace and lag. */
import type { Clients } from '../clients/clients.ts';
import type { Hub } from '../relay/hub.ts';

export interface GatewayFigures {
  /** when this was said, in ms since 1970 by its own clock: rates are made of two */
  at: number;
  seq: number;
  /** since its start: changes, and how many times one was written to a client */
  passed: number;
  delivered: number;
  /** from the capture of changes until they were written, of the last ten seconds, in ms; null: there were none */
  lag: { p50: number; p99: number } | null;
  /** bytes that wait for clients */
  queuedBytes: number;
  /** clients that do not keep up */
  slow: number;
  /** bytes of memory */
  rss: number;
}

/** A gateway's own part of its status in the roster. */
export type GatewayState = Record<string, unknown> &
  GatewayFigures & {
    ready: boolean;
    draining: boolean;
    connections: number;
    limit: number;
    /** where changes come from: the stream, or the log in Postgres */
    changes: 'tailing' | 'reading';
    position: string;
    /** connections that were asked to go elsewhere and may be nowhere: see shedding.ts */
    moving: number;
    /** how long the last canary took; null: none has come */
    canaryMs: number | null;
    /** the one that should have come has not */
    canaryLate: boolean;
    /** for how long changes can arrive without a doubt; 0: there is one */
    freshMs: number;
    /** why there is; null: none */
    staleReason: string | null;
  };

/** As another replica's console sees it. */
export interface SeenGateway extends GatewayFigures {
  ready: boolean;
  reason?: string;
  draining: boolean;
  connections: number;
  limit: number;
  changes: 'tailing' | 'reading';
  canaryMs: number | null;
  canaryLate: boolean;
  /** why changes may not reach it; null: they can */
  staleReason: string | null;
}

export function gatewayFigures(hub: Hub, clients: Clients): GatewayFigures {
  const lag = hub.lag.quantiles([0.5, 0.99], performance.now());
  const { queuedBytes, slow } = clients.survey(0);
  return {
    at: Date.now(),
    seq: hub.seq,
    passed: hub.passed,
    delivered: hub.delivered,
    lag: lag && { p50: lag[0], p99: lag[1] },
    queuedBytes,
    slow,
    rss: process.memoryUsage.rss(),
  };
}
