/**
 * Decides whether the server still confirms that changes can reach this connection. The server confirms it by a `pos`
 * every `pos_ms`, or by a change. Pure. What must stay true: If a timer was late (a hidden page, a machine that slept),
 * the expected frames may be late too, so subscriptions do not become stale. If no subscription is live, the server
 * sends no `pos`, so subscriptions do not become stale either.
 */
import { limits } from './limits.ts';

export interface Freshness {
  /**
   * if no position and no change comes for this long (in ms), the connection is stale. Null: this server promises no
   * `pos`, so the connection never becomes stale
   */
  readonly staleMs: number | null;
  /** when the last position or change came, on the state machine's clock */
  readonly freshAt: number;
  /** when the next position or change is due */
  readonly dueAt: number;
  readonly isStale: boolean;
}

/** @param posMs `pos_ms` of the server's `welcome` */
export function beginFresh(posMs: number | undefined, now: number): Freshness {
  const staleMs = posMs === undefined ? null : Math.round(limits.stale * posMs);
  return { staleMs, freshAt: now, dueAt: now + (staleMs ?? 0), isStale: false };
}

/** Called when a position or a change has come. */
export function refresh(freshness: Freshness, now: number): Freshness {
  return { ...freshness, freshAt: now, dueAt: now + (freshness.staleMs ?? 0), isStale: false };
}

/**
 * Called when the timer that was set for `dueAt` has fired. `isExpected`: whether positions should come, because a
 * subscription is live.
 */
export function judge(freshness: Freshness, now: number, isExpected: boolean): Freshness {
  const { staleMs, dueAt } = freshness;
  if (staleMs === null) return freshness;
  if (!isExpected) return refresh(freshness, now);
  if (now < dueAt) return freshness;
  if (now - dueAt > limits.heldUpMs) return { ...freshness, dueAt: now + staleMs };
  return { ...freshness, isStale: true };
}
