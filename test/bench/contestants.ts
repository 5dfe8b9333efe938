// Owns who takes part in the fan-out benchmarks: servers with open sockets, told to pass changes on at a fixed rate, and what that
// costs. What counts is the CPU time of the processes between the log and the sockets: a gateway and its Redis, as a Socket.IO
// server and its Redis; not of those that write and those that receive.

import { mkdir } from 'node:fs/promises';
import { join } from 'node:path';
import { setTimeout as delay } from 'node:timers/promises';
import { Cluster, type ClusterOptions } from '#deploy/local/cluster.ts';
import { startRedis } from '#deploy/local/redis.ts';
import { admin } from '../support/servers/admin.ts';
import { until } from '../support/wait.ts';
import { message } from './baselines/message.ts';
import { cpuMicros } from './cpu.ts';
import { compiled } from './generator/compile.ts';
import { type Door, Receivers } from './generator/receivers.ts';
import { LineChild } from './lines.ts';
import { Publishing } from './publishing.ts';
import { VoidRound } from './rounds.ts';

export interface Load {
  flushes: number;
  everyMs: number;
  /** in a flush */
  changes: number;
}

/** A server as it is benchmarked. */
export interface Server extends Door {
  /** whose CPU time counts, by what they are */
  pids(): Record<string, number[]>;
  /** Resolves when the last flush is written, not when it has arrived. */
  run(load: Load): Promise<void>;
}

const answerMs = 20_000;
/** a generator that had this share of a core was late */
const maxBusy = 0.85;

/** A server with its clients. */
export class Contestant {
  readonly #server: Server;
  readonly #receivers: Receivers;
  /** who gets a change */
  #fanout = 0;

  private constructor(server: Server, receivers: Receivers) {
    this.#server = server;
    this.#receivers = receivers;
  }

  static async enter(server: Server, stack: AsyncDisposableStack, folder: string): Promise<Contestant> {
    const receivers = await Receivers.start(folder);
    stack.defer(() => receivers.stop());
    return new Contestant(server, receivers);
  }

  /** Opens more clients, given by the channels of each (none: all changes); from now on `fanout` of all get a change. `port`: of one replica. */
  async admit(clients: readonly (readonly number[])[], fanout: number, port = this.#server.port): Promise<void> {
    await this.#receivers.open(this.#server, clients, port);
    this.#fanout = fanout;
  }

  /** So that a server is measured as one that has run for a while, its code compiled: many changes to one client, who stays. */
  async warmUp(flushes: number): Promise<void> {
    await this.admit([[]], 1);
    await this.measure({ flushes, everyMs: 2, changes: 1 });
  }

  /** CPU µs for each delivery, by what the processes are. */
  async measure(load: Load): Promise<Record<string, number>> {
    const server = this.#server;
    const receivers = this.#receivers;
    const pids = server.pids();
    const cpu = () => Object.values(pids).map((list) => cpuMicros(list));
    const deliveries = load.flushes * load.changes * this.#fanout;
    const expected = (await receivers.count()).changes + deliveries;
    const startedAt = performance.now();
    const busyBefore = receivers.cpuMicros();
    const before = cpu();
    await server.run(load);
    const arrived = async () => (await receivers.count()).changes >= expected;
    await until(`${deliveries} changes arrive`, arrived, answerMs);
    const after = cpu();
    const busy = (receivers.cpuMicros() - busyBefore) / 1_000 / (performance.now() - startedAt);
    const { changes } = await receivers.count();
    if (changes !== expected) throw new Error(`${changes - expected} changes arrived more than once`);
    if (busy > maxBusy) throw new VoidRound(`the generator was busy for ${Math.round(busy * 100)} % of the time`);
    return Object.fromEntries(Object.keys(pids).map((name, i) => [name, (after[i]! - before[i]!) / deliveries]));
  }
}

/** What all of them cost together. */
export function total(costs: Record<string, number>): number {
  return Object.values(costs).reduce((sum, cost) => sum + cost, 0);
}

function baseline(child: LineChild, port: number, rest: Partial<Server> = {}): Server {
  return {
    port,
    pids: () => ({ server: [child.pid] }),
    async run({ flushes, everyMs, changes }) {
      await child.ask(`run ${flushes} ${everyMs} ${changes}`);
    },
    messages: () => [],
    path: pathOf('/ws?'),
    greetings: () => 0,
    ...rest,
  };
}

const pathOf = (start: string) => (channels: readonly number[]) =>
  channels.length === 0 ? start : `${start}channels=${channels.join(',')}`;

const script = (name: string) => join(import.meta.dirname, 'baselines', `${name}.ts`);

export async function startRaw(stack: AsyncDisposableStack, env?: NodeJS.ProcessEnv): Promise<Server> {
  const child = await LineChild.node('raw writes', script('raw'), [], env);
  stack.defer(() => child.stop());
  return baseline(child, Number(await child.hear()));
}

export async function startWsLoop(stack: AsyncDisposableStack, env?: NodeJS.ProcessEnv): Promise<Server> {
  const child = await LineChild.node('the ws loop', script('ws-loop'), [], env);
  stack.defer(() => child.stop());
  return baseline(child, Number(await child.hear()));
}

/** Null where there is no C compiler. */
export async function startLoop(stack: AsyncDisposableStack, folder: string): Promise<Server | null> {
  const program = await compiled(join(import.meta.dirname, 'baselines/loop.c'), folder);
  if (program === null) return null;
  const child = await LineChild.start('the C loop', program, [String(JSON.stringify(message).length)]);
  stack.defer(() => child.stop());
  return baseline(child, Number(await child.hear()));
}

export async function startSocketIo(
  stack: AsyncDisposableStack,
  folder: string,
  env?: NodeJS.ProcessEnv,
): Promise<Server> {
  const dir = join(folder, 'socket-io-redis');
  await mkdir(dir, { recursive: true });
  const redis = await startRedis({ dir });
  stack.defer(() => redis.stop());
  const child = await LineChild.node('Socket.IO', script('socket-io'), [redis.url], env);
  stack.defer(() => child.stop());
  return baseline(child, Number(await child.hear()), {
    pids: () => ({ server: [child.pid], redis: [redis.pid] }),
    messages: () => ['40'],
    path: pathOf('/socket.io/?EIO=4&transport=websocket&'),
    // the session, then the namespace
    greetings: () => 2,
  });
}

export interface Plank extends Server {
  cluster: Cluster;
}

/** Pings would be charged to the round that they fall into, and clients stay where they are. */
const quiet = { PING_INTERVAL_MS: '3600000', SHED_PER_SECOND: '0', LOG_LEVEL: 'warn' };

/**
 * Real gateways with a real Redis, whose clients speak plank.v1. Changes are published as the listener does it, a batch a flush, and
 * the log in Postgres is told of them; but nothing is written there, and no listener runs: what they do meanwhile on the same cores
 * would be charged to the gateway, by what it finds in their caches, and to no baseline.
 */
export async function startPlank(
  stack: AsyncDisposableStack,
  { gateways, ...options }: Pick<ClusterOptions, 'gateways' | 'folder' | 'databaseUrl' | 'gatewayEnv'>,
): Promise<Plank> {
  const cluster = await Cluster.start({ balanced: false, env: quiet, ...options, listeners: 0, gateways: 0 });
  stack.defer(() => cluster.stop());
  await admin(
    cluster.databaseUrl,
    `create table bench_items (id bigint primary key, room integer not null, name text not null, note text not null,
       updated_at timestamptz not null default now());
     select plank.attach('bench_items');`,
  );
  for (let i = 0; i < gateways; i++) await cluster.addGateway();
  const publishing = await Publishing.start(cluster);
  stack.defer(() => publishing.stop());
  return {
    cluster,
    get port() {
      return Number(new URL(cluster.url).port);
    },
    pids: () => ({ gateways: cluster.gateways.map(({ pid }) => pid), redis: [cluster.redis!.pid] }),
    protocol: 'plank.v1',
    path: () => '/ws',
    messages(channels) {
      const subscribe = (where: object, i: number) =>
        JSON.stringify({ type: 'subscribe', id: i + 1, table: 'bench_items', ...where });
      const wishes = channels.length === 0 ? [{}] : channels.map((room) => ({ where: { room } }));
      return [JSON.stringify({ type: 'hello' }), ...wishes.map(subscribe)];
    },
    // welcome; of each subscription, ok and live
    greetings: (channels) => 1 + 2 * Math.max(1, channels.length),
    async run({ flushes, everyMs, changes }) {
      const started = performance.now();
      for (let i = 0; i < flushes; i++) {
        await delay(Math.max(0, started + i * everyMs - performance.now()));
        await publishing.publish(changes);
      }
      publishing.end();
    },
  };
}
