// Owns the faults of a torture run: each is inflicted on real processes or connections, lasts, and is healed. What must stay true: after
// `heal` resolves, only damage is left that Plank itself must repair.

import { setTimeout as delay } from 'node:timers/promises';
import { Redis } from 'ioredis';
import type { ClusterNode } from '#deploy/local/cluster.ts';
import type { TcpProxy } from '../support/stage/tcp-proxy.ts';
import { insist } from './insist.ts';
import type { Random } from './random.ts';
import type { World } from './world.ts';

interface Fault {
  /** The parts of which the fault takes one. No other fault takes the same part at the same time. */
  of: (world: World) => readonly string[];
  /** Inflicts the fault on that part. Resolves with the function that heals it. */
  inflict: (world: World, part: string, random: Random) => Promise<() => Promise<void>>;
}

const nothing = async () => {};
const kinds = ['listeners', 'gateways'] as const;
type Kind = (typeof kinds)[number];
const links = ['listenerPostgres', 'gatewayPostgres', 'listenerRedis', 'gatewayRedis'] as const;
type LinkName = (typeof links)[number];

function onNode(kind: Kind, inflict: (node: ClusterNode) => Promise<() => Promise<void>>): Fault {
  return {
    of: ({ cluster }) => cluster[kind].map(({ name }) => name),
    inflict: ({ cluster }, part) => inflict(cluster[kind].find(({ name }) => name === part)!),
  };
}

function onLink(inflict: (link: TcpProxy, random: Random) => () => Promise<void>): Fault {
  return {
    of: () => links,
    inflict: async (world, part, random) => inflict(world.links[part as LinkName], random),
  };
}

function on(part: string, inflict: (world: World, random: Random) => Promise<() => Promise<void>>): Fault {
  return { of: () => [part], inflict: (world, _, random) => inflict(world, random) };
}

const killed = (kind: Kind) =>
  onNode(kind, async (node) => {
    await node.kill();
    return () => again(node);
  });

const paused = (kind: Kind) =>
  onNode(kind, async (node) => {
    node.signal('SIGSTOP');
    return async () => node.signal('SIGCONT');
  });

/** A node may fail to start while another fault holds its server: then it is started again. */
async function again(node: ClusterNode): Promise<void> {
  for (let attempt = 1; ; attempt++) {
    try {
      await node.start();
      return;
    } catch (error) {
      if (attempt === 10) throw error;
      await delay(500);
    }
  }
}

export const faults: Record<string, Fault> = {
  'a listener is killed': killed('listeners'),
  'a listener is paused': paused('listeners'),
  'a gateway is killed': killed('gateways'),
  'a gateway is paused': paused('gateways'),
  'a gateway is stopped and started': onNode('gateways', async (node) => {
    await node.stop();
    return () => again(node);
  }),
  'Postgres crashes': on('postgres', async ({ postgres }) => {
    await postgres.stop('immediate');
    return () => postgres.restart('immediate');
  }),
  'Postgres restarts': on('postgres', async ({ postgres }) => {
    await postgres.restart('fast');
    return nothing;
  }),
  'sessions are ended': on('postgres', async ({ databaseUrl }) => {
    const own = `application_name like 'plank %' and application_name <> 'plank tests'`;
    await insist(databaseUrl, `select pg_terminate_backend(pid) from pg_stat_activity where ${own}`);
    return nothing;
  }),
  'Redis is killed': on('redis', async ({ redis }) => {
    await redis.kill();
    return () => redis.restart();
  }),
  'Redis is emptied': on('redis', async ({ redis }) => {
    await inRedis(redis.url, (client) => client.flushall());
    return nothing;
  }),
  'the stream is deleted': on('redis', async ({ redis }) => {
    await inRedis(redis.url, (client) => client.del('{plank}:stream'));
    return nothing;
  }),
  'Redis is paused': on('redis', async ({ redis }) => {
    process.kill(redis.pid, 'SIGSTOP');
    return async () => void process.kill(redis.pid, 'SIGCONT');
  }),
  'a link is cut': onLink((link) => {
    link.cut();
    return nothing;
  }),
  'a link is silent': onLink((link) => {
    link.blackhole();
    return async () => link.pass();
  }),
  'a link is slow': onLink((link, random) => {
    link.delay(random.between(50, 300));
    return async () => link.pass();
  }),
  'nginx is reloaded': on('nginx', async ({ cluster }) => {
    await cluster.nginx!.setUpstreams(cluster.gateways.map(({ url }) => new URL(url).host));
    return nothing;
  }),
  'nginx restarts': on('nginx', async ({ cluster }) => {
    await cluster.nginx!.restart();
    return nothing;
  }),
  'clients lose their connections': on('clients', async (world, random) => {
    for (const client of world.clients) if (random.chance(0.5)) client.drop();
    return nothing;
  }),
  'clients read nothing': on('clients', async (world, random) => {
    const slow = world.clients.filter(() => random.chance(0.3));
    for (const client of slow) client.pause();
    return async () => {
      for (const client of slow) client.resume();
    };
  }),
};

async function inRedis(url: string, work: (client: Redis) => Promise<unknown>): Promise<void> {
  const client = new Redis(url, { maxRetriesPerRequest: 1, lazyConnect: true, connectTimeout: 2_000 });
  client.on('error', () => {});
  try {
    await client.connect();
    await work(client);
  } finally {
    client.disconnect();
  }
}
