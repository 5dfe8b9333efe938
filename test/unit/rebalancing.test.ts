// How many connections replicas give away, by simulation: statuses are a second old, a client that was asked to leave is
// away for a while, and the balancer may be a good or a bad one. What must stay true: the replicas end even, none gives
// below the fair share, and rebalancing comes to rest.

import * as fc from 'fast-check';
import { describe, expect, test } from 'vitest';
import {
  askedFewer,
  freshMemory,
  type RebalanceMemory,
  type Replica,
  rebalance,
  returnMs,
  tolerance,
} from '#gateway/balance/fair-share.ts';

/** `two`: two balancers, each in front of every other replica, each looking for the fewest connections */
type Balancer = 'least_conn' | 'random' | 'sticky' | 'two';

interface Node {
  name: string;
  there: boolean;
  draining: boolean;
  connections: number;
  /** when each client was asked to leave, for those asked lately */
  asked: number[];
  memory: RebalanceMemory;
  /** offset of its second, in ms */
  phase: number;
}

const stepMs = 100;
const everyMs = 1_000;
/** as in the roster */
const goneMs = 4_500;

class Simulation {
  readonly nodes: Node[];
  balancer: Balancer;
  readonly #perSecond: number;
  readonly #random: () => number;
  readonly #statuses = new Map<string, { status: Replica; at: number }>();
  readonly #away: { until: number; from: Node }[] = [];
  #now = 0;
  given = 0;
  lastGiven = 0;

  constructor(counts: readonly number[], options: { balancer: Balancer; perSecond: number; seed: number }) {
    this.balancer = options.balancer;
    this.#perSecond = options.perSecond;
    let state = options.seed;
    this.#random = () => {
      state = (Math.imul(state, 1_664_525) + 1_013_904_223) >>> 0;
      return state / 2 ** 32;
    };
    this.nodes = counts.map((connections, i) => ({
      name: `g${i}`,
      there: true,
      draining: false,
      connections,
      asked: [],
      memory: freshMemory,
      phase: Math.floor(this.#random() * 10) * stepMs,
    }));
  }

  get counts(): number[] {
    return this.nodes.filter(({ there }) => there).map(({ connections }) => connections);
  }

  get share(): number {
    const counts = this.counts;
    return (counts.reduce((sum, count) => sum + count, 0) + this.#away.length) / counts.length;
  }

  get seconds(): number {
    return this.#now / 1_000;
  }

  /** Whether all are within the tolerance of the share, and nobody is on the way. */
  get isEven(): boolean {
    return this.#away.length === 0 && this.counts.every((n) => Math.abs(n - this.share) <= tolerance(this.share) + 1);
  }

  run(seconds: number): void {
    for (const end = this.#now + seconds * 1_000; this.#now < end; this.#now += stepMs) this.#step();
  }

  /** Its clients are elsewhere within two seconds; the other replicas notice its death later. */
  kill(node: Node): void {
    node.there = false;
    for (let i = 0; i < node.connections; i++)
      this.#away.push({ until: this.#now + this.#random() * 2_000, from: node });
    node.connections = 0;
  }

  #step(): void {
    for (const node of this.nodes) {
      if (!node.there || this.#now % everyMs !== node.phase) continue;
      this.#statuses.set(node.name, { status: this.#status(node), at: this.#now });
      const replicas = [...this.#statuses.values()]
        .filter(({ at }) => this.#now - at <= goneMs)
        .map(({ status }) => status);
      const world = { self: node.name, now: this.#now, perSecond: this.#perSecond };
      const { count, memory } = rebalance(node.memory, replicas, world);
      node.memory = memory;
      if (count > 0) this.#give(node, count);
    }
    for (const one of this.#away.filter(({ until }) => until <= this.#now)) {
      this.#away.splice(this.#away.indexOf(one), 1);
      this.#place(one.from).connections++;
    }
  }

  #isBeside(node: Node, other: Node): boolean {
    return (this.nodes.indexOf(node) - this.nodes.indexOf(other)) % 2 === 0;
  }

  #status({ name, draining, connections, asked }: Node): Replica {
    const moving = asked.filter((at) => this.#now - at < returnMs).length;
    return { instance: name, ready: !draining, draining, connections, limit: 50_000, moving };
  }

  #give(node: Node, count: number): void {
    expect(node.draining).toBe(false);
    expect(node.connections - count, 'nobody gives below the fair share').toBeGreaterThanOrEqual(
      Math.floor(this.share),
    );
    node.connections -= count;
    node.asked = [...node.asked.filter((at) => this.#now - at < returnMs), ...Array<number>(count).fill(this.#now)];
    for (let i = 0; i < count; i++) this.#away.push({ until: this.#now + this.#random() * 2_000, from: node });
    this.given += count;
    this.lastGiven = this.#now;
  }

  #place(from: Node): Node {
    const open = this.nodes.filter(({ there, draining }) => there && !draining);
    if (this.balancer === 'sticky') return from;
    if (this.balancer === 'random') return open[Math.floor(this.#random() * open.length)]!;
    const pool = this.balancer === 'two' ? open.filter((node) => this.#isBeside(node, from)) : open;
    return pool.reduce((least, node) => (node.connections < least.connections ? node : least));
  }
}

const clusters = fc.record({
  counts: fc.array(fc.integer({ min: 0, max: 1_000 }), { minLength: 2, maxLength: 8 }),
  seed: fc.nat(),
});

describe('a balancer that looks for the fewest', () => {
  test('the replicas end even, in the time that the rate allows, move each client at most once, and rest', () => {
    fc.assert(
      fc.property(clusters, ({ counts, seed }) => {
        const simulation = new Simulation(counts, { balancer: 'least_conn', perSecond: 20, seed });
        const tooMany = counts.map((count) => Math.max(0, count - simulation.share));
        simulation.run(20 + Math.max(...tooMany) / 10);
        expect(simulation.isEven, simulation.counts.join()).toBe(true);
        expect(simulation.given).toBeLessThanOrEqual(tooMany.reduce((sum, count) => sum + count, 0) + counts.length);
        const { given } = simulation;
        simulation.run(120);
        expect(simulation.given).toBe(given);
      }),
      { numRuns: 150 },
    );
  });

  test('2,000 clients spread over two new replicas within a minute, to within 10 %', () => {
    const simulation = new Simulation([1_000, 1_000, 0, 0], { balancer: 'least_conn', perSecond: 20, seed: 1 });
    simulation.run(45);
    for (const count of simulation.counts) expect(Math.abs(count - 500)).toBeLessThanOrEqual(50);
    expect(simulation.lastGiven).toBeGreaterThan(20_000);
  });

  test('a replica rebalances a few seconds after another has come', () => {
    const simulation = new Simulation([100, 0], { balancer: 'least_conn', perSecond: 20, seed: 1 });
    simulation.run(5);
    expect(simulation.given).toBe(0);
    simulation.run(5);
    expect(simulation.given).toBeGreaterThan(20);
  });
});

describe('a balancer that spreads at random', () => {
  test('the replicas come to rest, and none is far above the fair share', () => {
    fc.assert(
      fc.property(clusters, ({ counts, seed }) => {
        const simulation = new Simulation(counts, { balancer: 'random', perSecond: 20, seed });
        simulation.run(400);
        // within what chance does to counts, or its third of five minutes' rest
        const { share } = simulation;
        const above = Math.max(...simulation.counts) - share;
        expect(above, simulation.counts.join()).toBeLessThanOrEqual(2 * tolerance(share) + 4 * Math.sqrt(share));
        const { given } = simulation;
        simulation.run(300);
        // no more than one attempt at what chance has left
        expect(simulation.given - given).toBeLessThanOrEqual(counts.length * 20 * 25);
      }),
      { numRuns: 50 },
    );
  });
});

describe('a balancer that sends each client back', () => {
  test('a replica gives up soon, for minutes', () => {
    const simulation = new Simulation([500, 0], { balancer: 'sticky', perSecond: 20, seed: 7 });
    simulation.run(60);
    const { given } = simulation;
    expect(given).toBeLessThanOrEqual(25 * 20);
    simulation.run(200);
    expect(simulation.given).toBe(given);
  });

  test.each<[Balancer, number[]]>([
    ['sticky', [500, 0]],
    ['two', [1_000, 100, 1_000, 100]],
  ])('a replica tries ever more seldom, down to once an hour (%s)', (balancer, counts) => {
    const simulation = new Simulation(counts, { balancer, perSecond: 20, seed: 7 });
    simulation.run(4 * 3_600);
    // after 5, 10, 20, 40 and then 60 minutes each
    expect(simulation.given).toBeLessThanOrEqual((counts.length / 2) * 8 * 25 * 20);
    const { given } = simulation;
    simulation.run(70 * 60);
    expect(simulation.given).toBeGreaterThan(given);
  });

  test('a replica rests as briefly as at first once rebalancing was of use', () => {
    const simulation = new Simulation([500, 0], { balancer: 'sticky', perSecond: 20, seed: 7 });
    const [node] = simulation.nodes;
    simulation.run(3_600);
    expect(node!.memory.restMs).toBeGreaterThan(freshMemory.restMs);
    simulation.balancer = 'least_conn';
    simulation.run(3_600);
    expect(simulation.isEven).toBe(true);
    expect(node!.memory.restMs).toBe(freshMemory.restMs);
  });

  test('a replica tries again soon after another has come', () => {
    const simulation = new Simulation([500, 0, 0], { balancer: 'sticky', perSecond: 20, seed: 7 });
    const late = simulation.nodes[2]!;
    late.there = false;
    simulation.run(3 * 3_600);
    late.there = true;
    simulation.balancer = 'least_conn';
    simulation.run(6 * 60);
    expect(simulation.isEven).toBe(true);
  });
});

describe('no rebalancing', () => {
  const replica = (instance: string, more: Partial<Replica> = {}): Replica => ({
    instance,
    ready: true,
    draining: false,
    connections: 0,
    limit: 50_000,
    moving: 0,
    ...more,
  });

  /** What `a` gives when it has seen these replicas for a minute. */
  function given(replicas: Replica[], perSecond = 20): number {
    let memory = freshMemory;
    let count = 0;
    for (let now = 0; now <= 15_000; now += 1_000)
      ({ count, memory } = rebalance(memory, replicas, { self: 'a', now, perSecond }));
    return count;
  }

  test.each<[string, Replica[]]>([
    ['while it is alone', [replica('a', { connections: 900 })]],
    [
      'where the other is draining',
      [replica('a', { connections: 900 }), replica('b', { ready: false, draining: true })],
    ],
    ['where the other is not ready', [replica('a', { connections: 900 }), replica('b', { ready: false })]],
    ['where the other is full', [replica('a', { connections: 900 }), replica('b', { connections: 100, limit: 100 })]],
    ['while it is not ready itself', [replica('a', { connections: 900, ready: false }), replica('b')]],
    ['while it drains, which moves all of them', [replica('a', { connections: 900, draining: true }), replica('b')]],
    ['where it is near enough', [replica('a', { connections: 105 }), replica('b', { connections: 95 })]],
    ['where few are connected at all', [replica('a', { connections: 10 }), replica('b')]],
  ])('a replica gives nothing %s', (_, replicas) => {
    expect(given(replicas)).toBe(0);
  });

  test('a replica gives nothing at a rate of 0', () => {
    const replicas = [replica('a', { connections: 900 }), replica('b')];
    expect(given(replicas, 0)).toBe(0);
    expect(given(replicas)).toBe(20);
  });
});

test('clients that could not be asked to go do not count as come back', () => {
  const there = (instance: string, connections: number): Replica => {
    return { instance, ready: true, draining: false, connections, limit: 50_000, moving: 0 };
  };
  const replicas = [there('a', 900), there('b', 0)];
  const rests = (asks: boolean) => {
    let memory = freshMemory;
    for (let now = 0; now <= 60_000; now += 1_000) {
      const given = rebalance(memory, replicas, { self: 'a', now, perSecond: 20 });
      memory = asks ? given.memory : askedFewer(given.memory, given.count);
    }
    return memory.restsUntil > 0;
  };
  expect(rests(true)).toBe(true);
  expect(rests(false)).toBe(false);
});

test('a replica that dies leaves the mean, and counts again when it is back', () => {
  const simulation = new Simulation([400, 400, 400], { balancer: 'least_conn', perSecond: 20, seed: 3 });
  simulation.run(10);
  const [, , dying] = simulation.nodes;
  simulation.kill(dying!);
  simulation.run(60);
  expect(simulation.given).toBe(0);
  expect(simulation.counts).toEqual([600, 600]);
  dying!.there = true;
  simulation.run(60);
  expect(simulation.isEven).toBe(true);
  expect(simulation.given).toBeGreaterThan(300);
});
