/**
 * What this gateway learns from the roster about the leader and the other gateways: freshness.ts
 * judges its own state by that.
 */
import { gatewaysIn, leaderIn } from '#shared/bus/node-state.ts';
import type { Roster } from '#shared/bus/roster.ts';
import type { LeaderReport } from '../relay/freshness.ts';

/** Where the leading listener is in the log; null if none is heard. */
export function leaderOf(roster: Roster): LeaderReport | null {
  const leader = leaderIn(roster.nodes());
  if (!leader) return null;
  const { node, instance, state } = leader;
  const { headSeq, epoch, owedMs } = state;
  const heardAt = roster.heardAt(instance);
  if (heardAt === null || headSeq === null || epoch === null) return null;
  return { node, epoch, headSeq, at: heardAt - (owedMs ?? 0) };
}

/**
 * For each other replica that is ready: for how long it has been certain that changes can reach it,
 * in ms.
 */
export function freshMsOfOthers(roster: Roster): number[] {
  return gatewaysIn(roster.nodes())
    .filter(({ instance, state }) => instance !== roster.instance && state.ready)
    .map(({ state }) => state.freshMs);
}
