/**
 * How many connections a replica gives away to the others, once a second: pure, so that it can be tried out by simulation.
 *
 *   settled    as many as its fair share (the mean of all ready replicas), or near it: gives none
 *   evening    too far above it, or another is too far below: gives a few a second, until both are near
 *   resting    those it gave came back: the balancer has no eye for the fewest, and it is of no use to go on for now; each time
 *              for longer, until it has been of use
 *
 * What must stay true: nobody goes below the fair share by giving; those on their way count as still there; nobody gives while
 * many arrive, nor when replicas have just come or gone: what is known of the others then is too old.
 */

/** What the others know of a replica. */
export interface Replica {
  instance: string;
  ready: boolean;
  draining: boolean;
  connections: number;
  /** connections that it accepts */
  limit: number;
  /** asked to go elsewhere within the last `returnMs`: they may be nowhere */
  moving: number;
}

/** What is remembered from one second to the next. */
export interface ShedMemory {
  /** the replicas that count */
  readonly members: string;
  /** since when there are these, and not many arrive */
  readonly since: number;
  readonly evening: boolean;
  /** how many were here a second ago */
  readonly connections: number;
  readonly restsUntil: number;
  /** how long the next rest is to be */
  readonly restMs: number;
  /** of the last seconds of evening: how many were here, and how many had been asked to go in all */
  readonly trail: readonly { readonly at: number; readonly connections: number; readonly asked: number }[];
}

/** who was asked to go is elsewhere, and known there, after this time */
export const returnMs = 3_000;
/** the same replicas have been there for so long; longer than the roster needs to find one dead */
const settleMs = 5_000;
/** what is given is judged over so long */
const judgeMs = 20_000;
/** this part of those given must have gone elsewhere, or it was of no use */
const usefulPart = 0.2;
const leastJudged = 20;
const leastRestMs = 300_000;
const mostRestMs = 3_600_000;
/** one that is this full takes no more */
const fullPart = 0.95;

export const freshMemory: ShedMemory = {
  members: '',
  since: 0,
  evening: false,
  connections: 0,
  restsUntil: 0,
  restMs: leastRestMs,
  trail: [],
};

/** How far from the fair share is near enough to leave it at that. */
export function tolerance(share: number): number {
  return Math.max(share * 0.05, 10);
}

/** Whether it takes new connections. */
export function hasRoom({ ready, draining, connections, limit }: Omit<Replica, 'instance'>): boolean {
  return ready && !draining && connections < limit * fullPart;
}

/** How many of its connections `self`, one of the replicas, is to give within the next second. Times in ms. */
export function shed(
  memory: ShedMemory,
  replicas: readonly Replica[],
  world: { self: string; now: number; perSecond: number },
): { count: number; memory: ShedMemory } {
  const connections = replicas.find(({ instance }) => instance === world.self)?.connections ?? 0;
  const next = decide(memory, replicas, world);
  return { ...next, memory: { ...next.memory, connections } };
}

function decide(
  memory: ShedMemory,
  replicas: readonly Replica[],
  { self, now, perSecond }: { self: string; now: number; perSecond: number },
): { count: number; memory: ShedMemory } {
  const counted = replicas.filter(({ ready, draining }) => ready && !draining);
  const members = counted
    .map(({ instance }) => instance)
    .sort()
    .join(' ');
  // what came of it among others says little of these
  if (members !== memory.members)
    return idle({ ...memory, members, since: now, restsUntil: Math.min(memory.restsUntil, now + leastRestMs) });
  const own = counted.find(({ instance }) => instance === self);
  const others = counted.filter(({ instance, ...it }) => instance !== self && it.connections < it.limit * fullPart);
  if (!own || others.length === 0 || now - memory.since < settleMs || now < memory.restsUntil) return idle(memory);

  // those on their way may be counted twice, where they have arrived: the share is never too low for it
  const counting = [own, ...others];
  const onTheirWay = counting.reduce((sum, { moving }) => sum + moving, 0);
  const total = counting.reduce((sum, { connections }) => sum + connections, onTheirWay);
  const share = Math.ceil(total / counting.length);
  const excess = own.connections - share;
  const lack = share - Math.min(...others.map(({ connections }) => connections));
  const bound = tolerance(share) / (memory.evening ? 2 : 1);
  // not those on their way: perhaps of one that died, and is not known to have died
  if (own.connections - memory.connections > bound + onTheirWay) return idle({ ...memory, since: now });
  // who is evening and waits for those on their way goes on where they do not suffice
  if ((excess <= 0 && own.moving === 0) || (excess <= bound && lack <= bound))
    return idle(memory.evening ? { ...memory, restMs: leastRestMs } : memory);

  const asked = memory.trail.at(-1)?.asked ?? 0;
  const recent = memory.trail.filter(({ at }) => now - at <= judgeMs);
  if (wasFutile(recent, own.connections, now))
    return idle({ ...memory, restsUntil: now + memory.restMs, restMs: Math.min(mostRestMs, memory.restMs * 2) });
  const count = Math.max(0, Math.min(perSecond, excess));
  const trail = [...recent, { at: now, connections: own.connections, asked: asked + count }];
  return { count, memory: { ...memory, evening: true, trail } };
}

/** Less than `count` could be asked to go: so many `fewer`. */
export function askedFewer(memory: ShedMemory, fewer: number): ShedMemory {
  const trail = memory.trail.map((at, i) => (i === memory.trail.length - 1 ? { ...at, asked: at.asked - fewer } : at));
  return { ...memory, trail };
}

function idle(memory: ShedMemory): { count: number; memory: ShedMemory } {
  return { count: 0, memory: { ...memory, evening: false, trail: [] } };
}

/** Whether most of those who were asked to go are here again. */
function wasFutile(trail: ShedMemory['trail'], connections: number, now: number): boolean {
  const first = trail[0];
  const last = trail.findLast(({ at }) => now - at >= returnMs);
  if (!first || !last || now - first.at < judgeMs - 2_000) return false;
  const asked = last.asked - first.asked;
  return asked >= leastJudged && first.connections - connections < asked * usefulPart;
}
