/**
 * How many connections a replica gives away to others, decided once a second. Pure, so that it can
 * be tested by simulation.
 *
 *   settled      has about its fair share (the mean of all ready replicas): gives none
 *   rebalancing  has far more, or another replica has far less: gives a few a second, until both
 *                are near the share
 *   resting      the connections that it gave came back: the balancer does not look for the fewest,
 *                so going on is of no use for now. Each rest is longer than the last, until
 *                rebalancing has helped.
 *
 * What must stay true: no replica goes below the fair share by giving; connections on their way
 * count as still here; no replica gives while many arrive, nor just after replicas have come or
 * gone, because what it knows of the others is too old then.
 */

/** What the others know of a replica. */
export interface Replica {
  instance: string;
  ready: boolean;
  draining: boolean;
  connections: number;
  /** connections that it accepts */
  limit: number;
  /** connections asked to go elsewhere within the last `returnMs`; they may be at no replica now */
  moving: number;
}

/** What is remembered from one second to the next. */
export interface RebalanceMemory {
  /** the replicas that count */
  readonly members: string;
  /** since when there are these members and not many connections arrive */
  readonly since: number;
  readonly isRebalancing: boolean;
  /** connections that were here a second ago */
  readonly connections: number;
  readonly restsUntil: number;
  /** length of the next rest */
  readonly restMs: number;
  /** the last seconds of rebalancing: how many were here, and how many had been asked to go in all */
  readonly trail: readonly { readonly at: number; readonly connections: number; readonly asked: number }[];
}

/** within this time, a connection that was asked to go arrives elsewhere and is reported by the other replica */
export const returnMs = 3_000;
/** no replica gives until the same replicas have been there this long: longer than the roster needs to find one dead */
const settleMs = 5_000;
/** whether giving has helped is judged over this time */
const judgeMs = 20_000;
/** giving has helped if at least this part of the connections stays elsewhere */
const usefulPart = 0.2;
const leastJudged = 20;
const leastRestMs = 300_000;
const mostRestMs = 3_600_000;
/** a replica that is this full takes no more */
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

/** The distance from the fair share that is near enough. */
export function tolerance(share: number): number {
  return Math.max(share * 0.05, 10);
}

/** Whether the replica takes new connections. */
export function hasRoom({ ready, draining, connections, limit }: Omit<Replica, 'instance'>): boolean {
  return ready && !draining && connections < limit * fullPart;
}

/** How many of its connections `self`, one of the replicas, should give away within the next second. Times in ms. */
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
  // the experience with other members says little about these
  if (members !== memory.members)
    return idle({ ...memory, members, since: now, restsUntil: Math.min(memory.restsUntil, now + leastRestMs) });
  const own = counted.find(({ instance }) => instance === self);
  const others = counted.filter(({ instance, ...it }) => instance !== self && it.connections < it.limit * fullPart);
  if (!own || others.length === 0 || now - memory.since < settleMs || now < memory.restsUntil) return idle(memory);

  // a connection on its way that has already arrived is counted twice, which makes the share too high
  // for a moment, never too low
  const counting = [own, ...others];
  const onTheirWay = counting.reduce((sum, { moving }) => sum + moving, 0);
  const total = counting.reduce((sum, { connections }) => sum + connections, onTheirWay);
  const share = Math.ceil(total / counting.length);
  const excess = own.connections - share;
  const lack = share - Math.min(...others.map(({ connections }) => connections));
  const bound = tolerance(share) / (memory.isRebalancing ? 2 : 1);
  // more have arrived than were on their way: perhaps from a replica that died and still counts
  if (own.connections - memory.connections > bound + onTheirWay) return idle({ ...memory, since: now });
  // a replica that rebalances and has connections on their way goes on where those do not suffice
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

/** `fewer` of the `count` connections could not be asked to go. */
export function askedFewer(memory: RebalanceMemory, fewer: number): RebalanceMemory {
  const trail = memory.trail.map((at, i) => (i === memory.trail.length - 1 ? { ...at, asked: at.asked - fewer } : at));
  return { ...memory, trail };
}

function idle(memory: RebalanceMemory): { count: number; memory: RebalanceMemory } {
  return { count: 0, memory: { ...memory, isRebalancing: false, trail: [] } };
}

/** Whether most of those that were asked to go are here again. */
function wasFutile(trail: RebalanceMemory['trail'], connections: number, now: number): boolean {
  const first = trail[0];
  const last = trail.findLast(({ at }) => now - at >= returnMs);
  if (!first || !last || now - first.at < judgeMs - 2_000) return false;
  const asked = last.asked - first.asked;
  return asked >= leastJudged && first.connections - connections < asked * usefulPart;
}
