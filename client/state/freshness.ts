/**
 * Whether the server still confirms that changes can reach this connection: by a `pos` every
 * `pos_ms`, or by a change. Pure. What must stay true: a subscription does not become stale by a
 * timer that was held up together with what it waited for. Nor does it while none is live: then a
 * server sends no `pos`.
 */
import { limits } from './limits.ts';

export interface Freshness {
  /**
   * how long positions and changes may stay away, in ms; null: this server promises no `pos`, so
   * its connections are never stale
   */
  readonly staleMs: number | null;
  /** when the last one came */
  readonly freshAt: number;
  /** when the next one is due */
  readonly dueAt: number;
  readonly isStale: boolean;
}

/** @param posMs `pos_ms` of the server's `welcome` */
export function beginFresh(posMs: number | undefined, now: number): Freshness {
  const staleMs = posMs === undefined ? null : Math.round(limits.stale * posMs);
  return { staleMs, freshAt: now, dueAt: now + (staleMs ?? 0), isStale: false };
}

/** A position or a change came. */
export function refresh(freshness: Freshness, now: number): Freshness {
  return { ...freshness, freshAt: now, dueAt: now + (freshness.staleMs ?? 0), isStale: false };
}

/**
 * The timer that was set for `dueAt` has fired. `isExpected`: a subscription is live, so that
 * positions should come.
 */
export function judge(freshness: Freshness, now: number, isExpected: boolean): Freshness {
  const { staleMs, dueAt } = freshness;
  if (staleMs === null) return freshness;
  if (!isExpected) return refresh(freshness, now);
  if (now < dueAt) return freshness;
  if (now - dueAt > limits.heldUpMs) return { ...freshness, dueAt: now + staleMs };
  return { ...freshness, isStale: true };
}
