/**
 * What the roster reports about the leader and about the other gateways. freshness.ts needs this to judge
 * the state of this gateway.
 */
import { gatewaysIn, leaderIn } from '#shared/bus/node-state.ts';
import type { Roster } from '#shared/bus/roster.ts';
import type { LeaderReport } from '../relay/freshness.ts';

/** The leader's last report, with the last seq that it gave; null if no leader reports. */
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
 * For each other replica that is ready: for how long it has been certain that changes can reach the
 * replica, in ms; 0: it is not certain now.
 */
export function freshMsOfOthers(roster: Roster): number[] {
  return gatewaysIn(roster.nodes())
    .filter(({ instance, state }) => instance !== roster.instance && state.ready)
    .map(({ state }) => state.freshMs);
}
