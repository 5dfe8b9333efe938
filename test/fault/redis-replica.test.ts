// A gateway that reads changes from a replica of Redis puts no load on the primary, and survives the loss of the replica.

import { Redis } from 'ioredis';
import { afterAll, beforeAll, beforeEach, expect, test } from 'vitest';
import { Cluster, type ClusterNode } from '#deploy/local/cluster.ts';
import { type LocalRedis, startRedis } from '#deploy/local/redis.ts';
import { createDatabase } from '../support/servers/servers.ts';
import { connectAll, type TestClient } from '../support/stage/client.ts';
import { health, tellOnFailure } from '../support/stage/nodes.ts';
import { Ledger } from '../support/truth/ledger.ts';
import { until } from '../support/wait.ts';

const stack = new AsyncDisposableStack();
let cluster: Cluster;
let gateway: ClusterNode;
let databaseUrl: string;
let primary: LocalRedis;
let replica: LocalRedis;
let clients: TestClient[];

beforeAll(async () => {
  const database = await createDatabase();
  stack.defer(() => database.drop());
  databaseUrl = database.url;
  primary = await startRedis();
  stack.defer(() => primary.stop());
  replica = await startRedis({
    args: ['--replicaof', '127.0.0.1', `${primary.port}`, '--repl-diskless-sync-delay', '0'],
  });
  stack.defer(() => replica.stop());
  cluster = await Cluster.start({
    gateways: 1,
    balanced: false,
    databaseUrl,
    redisUrl: primary.url,
    gatewayEnv: { REDIS_TAIL_URL: replica.url },
  });
  stack.defer(() => cluster.stop());
  gateway = cluster.gateways[0]!;
  clients = await connectAll(10, { url: cluster.webSocketUrl });
  stack.defer(() => {
    for (const client of clients) client.stop();
  });
});

beforeEach(() => tellOnFailure(() => [...cluster.listeners, ...cluster.gateways]));

afterAll(() => stack.disposeAsync());

async function readsOf(redis: LocalRedis): Promise<number> {
  const client = new Redis(redis.url);
  try {
    return Number(/^cmdstat_xread:calls=(\d+)/m.exec(await client.info('commandstats'))?.[1] ?? 0);
  } finally {
    client.disconnect();
  }
}

const tails = async () => (await health(gateway)).changes === 'tailing';

test('changes come from the replica, from the log while it is down, and from the replica again', async () => {
  await until('the gateway tails', tails, 10_000);
  const ledger = new Ledger({ databaseUrl, restUrl: cluster.url }).start();
  const before = await readsOf(replica);
  await ledger.more(50);
  await until('the replica is read', async () => (await readsOf(replica)) > before, 5_000);

  await replica.kill();
  await ledger.more(50);
  expect(await tails()).toBe(false);
  await replica.restart();
  await until('the gateway tails again', tails, 15_000);
  await ledger.more(50);

  await ledger.finish(clients);
  for (const client of clients) expect(ledger.verify(client)).toEqual([]);
  // every client kept its connection
  expect(clients.flatMap(({ closeCodes }) => closeCodes)).toEqual([]);
  expect(await readsOf(primary)).toBe(0);
});
