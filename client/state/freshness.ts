/**
 * Whether a connection's server still says that changes can reach it: by a position every `pos_ms`, or by a change. Pure. What must stay
 * true: nobody is called stale by a timer that was held up together with what it waited for, nor while no subscription is live, when a
 * server says no positions.
 */
import { limits } from './model.ts';

export interface Freshness {
  /** how long positions and changes may stay away; null: this server says no positions, and is never stale */
  readonly staleMs: number | null;
  /** when the last one came */
  readonly freshAt: number;
  /** by when the next one has to come */
  readonly dueAt: number;
  readonly isStale: boolean;
}

export function beginFresh(posMs: number | undefined, now: number): Freshness {
  const staleMs = posMs === undefined ? null : Math.round(limits.stale * posMs);
  return { staleMs, freshAt: now, dueAt: now + (staleMs ?? 0), isStale: false };
}

/** A position or a change came. */
export function refresh(freshness: Freshness, now: number): Freshness {
  return { ...freshness, freshAt: now, dueAt: now + (freshness.staleMs ?? 0), isStale: false };
}

/** What the timer finds that was set for `dueAt`. */
export function judge(freshness: Freshness, now: number, isWaitedFor: boolean): Freshness {
  const { staleMs, dueAt } = freshness;
  if (staleMs === null) return freshness;
  if (!isWaitedFor) return refresh(freshness, now);
  if (now < dueAt) return freshness;
  if (now - dueAt > limits.heldUpMs) return { ...freshness, dueAt: now + staleMs };
  return { ...freshness, isStale: true };
}
