// Owns the servers of a torture run: Postgres, Redis, two listeners, three gateways, nginx, and a proxy on each link between them.

import { mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { Cluster } from '#deploy/local/cluster.ts';
import { type LocalPostgres, startPostgres } from '#deploy/local/postgres.ts';
import { type LocalRedis, startRedis } from '#deploy/local/redis.ts';
import { migrate } from '#shared/postgres/migrate.ts';
import { admin } from '../support/servers/admin.ts';
import { TcpProxy } from '../support/stage/tcp-proxy.ts';
import type { TortureClient } from './clients.ts';
import { schema } from './schema.ts';

export interface World {
  databaseUrl: string;
  postgres: LocalPostgres;
  redis: LocalRedis;
  cluster: Cluster;
  links: Record<'listenerPostgres' | 'gatewayPostgres' | 'listenerRedis' | 'gatewayRedis', TcpProxy>;
  clients: TortureClient[];
}

/** Small bounds, so that code that rarely runs in production runs often. */
const tight = {
  RING_BYTES: `${512 * 1024}`,
  MAX_QUEUE_BYTES: `${64 * 1024}`,
  STREAM_BYTES: `${1024 * 1024}`,
  PING_INTERVAL_MS: '1000',
  CANARY_INTERVAL_MS: '1000',
};

/** `programs`: the folder of another PostgreSQL than the one that comes along. The stack ends all of it. */
export async function startWorld(stack: AsyncDisposableStack, programs?: string): Promise<World> {
  const folder = await mkdtemp(join(tmpdir(), 'plank-torture-'));
  stack.defer(() => rm(folder, { recursive: true, force: true }));
  const postgres = await startPostgres({
    dataDir: join(folder, 'postgres'),
    fsync: false,
    ...(programs === undefined ? {} : { programs }),
  });
  stack.defer(() => postgres.stop());
  const redis = await startRedis({ dir: join(folder, 'redis') });
  stack.defer(() => redis.stop());
  const through = async (url: string) => {
    const proxy = await TcpProxy.start(url);
    stack.defer(() => proxy.stop());
    return proxy;
  };
  const links = {
    listenerPostgres: await through(postgres.url),
    gatewayPostgres: await through(postgres.url),
    listenerRedis: await through(redis.url),
    gatewayRedis: await through(redis.url),
  };
  await migrate(postgres.url);
  await admin(postgres.url, schema);
  const cluster = await Cluster.start({
    gateways: 3,
    listeners: 2,
    folder,
    databaseUrl: postgres.url,
    redisUrl: redis.url,
    env: tight,
    listenerEnv: {
      DATABASE_URL: links.listenerPostgres.through(postgres.url),
      REDIS_URL: links.listenerRedis.through(redis.url),
    },
    gatewayEnv: {
      DATABASE_URL: links.gatewayPostgres.through(postgres.url),
      REDIS_URL: links.gatewayRedis.through(redis.url),
    },
  });
  stack.defer(() => cluster.stop());
  return { databaseUrl: postgres.url, postgres, redis, cluster, links, clients: [] };
}
