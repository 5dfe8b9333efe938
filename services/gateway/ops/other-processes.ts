/** What other processes say of themselves in the roster, for what a gateway says of itself. */
import type { Roster } from '#shared/bus/roster.ts';
import type { LeaderSaid } from '../relay/freshness.ts';

/** A number that the leader says of itself; null where no leader is heard. */
export function toldByLeader(roster: Roster, field: string): number | null {
  for (const { role, state } of roster.nodes()) {
    const value = state[field];
    if (role === 'listener' && state.state === 'leading' && typeof value === 'number') return value;
  }
  return null;
}

/** What the leading listener says of itself; null where none is heard. */
export function leaderOf(roster: Roster): LeaderSaid | null {
  for (const { role, node, instance, state } of roster.nodes()) {
    const { headSeq, epoch, owedMs } = state;
    const heardAt = roster.heardAt(instance);
    if (role !== 'listener' || state['state'] !== 'leading' || heardAt === null) continue;
    if (typeof headSeq !== 'number' || typeof epoch !== 'number') continue;
    return { node, epoch, headSeq, at: heardAt - (typeof owedMs === 'number' ? owedMs : 0) };
  }
  return null;
}

/** For how long changes can reach each of the other replicas that are ready. */
export function freshMsOfOthers(roster: Roster): number[] {
  return roster.nodes().flatMap(({ role, instance, state }) => {
    const { freshMs } = state;
    const isOther = role === 'gateway' && instance !== roster.instance;
    return isOther && state['ready'] === true && typeof freshMs === 'number' ? [freshMs] : [];
  });
}
