/**
 * Decides once a second how many connections a replica gives to others. The functions are pure, so
 * that a simulation can test them.
 *
 *   settled      the replica has about its fair share (the mean of all ready replicas), and gives none
 *   rebalancing  the replica has far more than the share, or another replica has far less: it gives a
 *                few connections a second, until both are near the share
 *   resting      the connections that the replica gave came back, because the balancer does not choose
 *                the replica with the fewest. The replica gives none for a while. Each rest is twice
 *                as long as the last one, up to an hour, until rebalancing has helped.
 *
 * Invariants: no replica goes below the fair share by giving; connections on their way count in the
 * sum; no replica gives while many connections arrive, or within 5 s after a replica came or went,
 * because its figures of the others are too old then.
 */

/** The figures of a replica that the other replicas get. */
export interface Replica {
  instance: string;
  ready: boolean;
  draining: boolean;
  connections: number;
  /** the number of connections that the replica accepts */
  limit: number;
  /** connections asked to go within the last `returnMs`; some may be connected to no replica now */
  moving: number;
}

/** The state that one decision leaves to the next. */
export interface RebalanceMemory {
  /** the ready replicas that are not draining */
  readonly members: string;
  /** since when the members are the same and no rush of connections has arrived */
  readonly since: number;
  readonly isRebalancing: boolean;
  /** connections of this replica at the last decision */
  readonly connections: number;
  readonly restsUntil: number;
  /** length of the next rest */
  readonly restMs: number;
  /** the last seconds of rebalancing: connections of this replica, and how many it has asked to go in all */
  readonly trail: readonly { readonly at: number; readonly connections: number; readonly asked: number }[];
}

/** within this time, a connection that was asked to go arrives elsewhere and is reported by the other replica */
export const returnMs = 3_000;
/**
 * no replica gives connections until the members were the same for this long; a dead replica leaves the
 * roster sooner
 */
const settleMs = 5_000;
/** this file judges over this time whether giving has helped */
const judgeMs = 20_000;
/** giving has helped if at least this part of the given connections has not come back */
const usefulPart = 0.2;
const leastJudged = 20;
const leastRestMs = 300_000;
const mostRestMs = 3_600_000;
/** a replica takes no more connections above this part of its limit */
const fullPart = 0.95;

export const freshMemory: RebalanceMemory = {
  members: '',
  since: 0,
  isRebalancing: false,
  connections: 0,
  restsUntil: 0,
  restMs: leastRestMs,
  trail: [],
};

/** A number of connections within this distance of the fair share is near enough. */
export function tolerance(share: number): number {
  return Math.max(share * 0.05, 10);
}

/** Whether the replica takes new connections. */
export function hasRoom({ ready, draining, connections, limit }: Omit<Replica, 'instance'>): boolean {
  return ready && !draining && connections < limit * fullPart;
}

/** How many connections the replica `self` should give away within the next second. Times are in ms. */
export function rebalance(
  memory: RebalanceMemory,
  replicas: readonly Replica[],
  world: { self: string; now: number; perSecond: number },
): { count: number; memory: RebalanceMemory } {
  const connections = replicas.find(({ instance }) => instance === world.self)?.connections ?? 0;
  const next = decide(memory, replicas, world);
  return { ...next, memory: { ...next.memory, connections } };
}

function decide(
  memory: RebalanceMemory,
  replicas: readonly Replica[],
  { self, now, perSecond }: { self: string; now: number; perSecond: number },
): { count: number; memory: RebalanceMemory } {
  const counted = replicas.filter(({ ready, draining }) => ready && !draining);
  const members = counted
    .map(({ instance }) => instance)
    .sort()
    .join(' ');
  // a long rest was learned with other members, so it is cut to the shortest rest
  if (members !== memory.members)
    return idle({ ...memory, members, since: now, restsUntil: Math.min(memory.restsUntil, now + leastRestMs) });
  const own = counted.find(({ instance }) => instance === self);
  const others = counted.filter(({ instance, ...it }) => instance !== self && it.connections < it.limit * fullPart);
  if (!own || others.length === 0 || now - memory.since < settleMs || now < memory.restsUntil) return idle(memory);

  // a connection that was on its way and has just arrived is counted twice, so the share is too high
  // for a moment, but never too low
  const counting = [own, ...others];
  const onTheirWay = counting.reduce((sum, { moving }) => sum + moving, 0);
  const total = counting.reduce((sum, { connections }) => sum + connections, onTheirWay);
  const share = Math.ceil(total / counting.length);
  const excess = own.connections - share;
  const lack = share - Math.min(...others.map(({ connections }) => connections));
  const bound = tolerance(share) / (memory.isRebalancing ? 2 : 1);
  // more connections arrived than were on their way: perhaps from a replica that died but is still listed
  if (own.connections - memory.connections > bound + onTheirWay) return idle({ ...memory, since: now });
  // A replica that is not above the share stops, unless connections that it gave are still on their way. If this
  // replica and the one with the fewest are both near the share, it stops too.
  if ((excess <= 0 && own.moving === 0) || (excess <= bound && lack <= bound))
    return idle(memory.isRebalancing ? { ...memory, restMs: leastRestMs } : memory);

  const asked = memory.trail.at(-1)?.asked ?? 0;
  const recent = memory.trail.filter(({ at }) => now - at <= judgeMs);
  if (wasFutile(recent, own.connections, now))
    return idle({ ...memory, restsUntil: now + memory.restMs, restMs: Math.min(mostRestMs, memory.restMs * 2) });
  const count = Math.max(0, Math.min(perSecond, excess));
  const trail = [...recent, { at: now, connections: own.connections, asked: asked + count }];
  return { count, memory: { ...memory, isRebalancing: true, trail } };
}

/** The memory after `fewer` of the `count` connections could not be asked to go. */
export function askedFewer(memory: RebalanceMemory, fewer: number): RebalanceMemory {
  const trail = memory.trail.map((at, i) => (i === memory.trail.length - 1 ? { ...at, asked: at.asked - fewer } : at));
  return { ...memory, trail };
}

function idle(memory: RebalanceMemory): { count: number; memory: RebalanceMemory } {
  return { count: 0, memory: { ...memory, isRebalancing: false, trail: [] } };
}

/** Whether most connections that were asked to go have come back. */
function wasFutile(trail: RebalanceMemory['trail'], connections: number, now: number): boolean {
  const first = trail[0];
  const last = trail.findLast(({ at }) => now - at >= returnMs);
  if (!first || !last || now - first.at < judgeMs - 2_000) return false;
  const asked = last.asked - first.asked;
  return asked >= leastJudged && first.connections - connections < asked * usefulPart;
}
