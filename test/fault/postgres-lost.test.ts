// Postgres crashes, or falls silent towards the listener or the gateways: no change is lost, and changes flow again soon after
// Postgres is back.

import { mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, beforeAll, beforeEach, expect, test } from 'vitest';
import { Cluster } from '#deploy/local/cluster.ts';
import { type LocalPostgres, startPostgres } from '#deploy/local/postgres.ts';
import { admin } from '../support/servers/admin.ts';
import { redisUrl } from '../support/servers/servers.ts';
import { connectAll, type TestClient } from '../support/stage/client.ts';
import { health, leader, tellOnFailure } from '../support/stage/nodes.ts';
import { TcpProxy } from '../support/stage/tcp-proxy.ts';
import { Ledger } from '../support/truth/ledger.ts';
import { until } from '../support/wait.ts';

const stack = new AsyncDisposableStack();
let cluster: Cluster;
let postgres: LocalPostgres;
let listenersPostgres: TcpProxy;
let gatewaysPostgres: TcpProxy;
let gatewaysRedis: TcpProxy;
let clients: TestClient[] = [];
let ledger: Ledger;

beforeAll(async () => {
  const dataDir = await mkdtemp(join(tmpdir(), 'plank-fault-postgres-'));
  stack.defer(() => rm(dataDir, { recursive: true, force: true }));
  postgres = await startPostgres({ dataDir });
  stack.defer(() => postgres.stop());
  const redis = await redisUrl();
  const proxy = async (url: string) => {
    const started = await TcpProxy.start(url);
    stack.defer(() => started.stop());
    return started;
  };
  listenersPostgres = await proxy(postgres.url);
  gatewaysPostgres = await proxy(postgres.url);
  gatewaysRedis = await proxy(redis);
  cluster = await Cluster.start({
    gateways: 2,
    balanced: false,
    databaseUrl: postgres.url,
    sample: true,
    redisUrl: redis,
    env: { PLANK_LOG_NAME: `postgres-lost-${process.pid}` },
    listenerEnv: { DATABASE_URL: listenersPostgres.through(postgres.url) },
    gatewayEnv: { DATABASE_URL: gatewaysPostgres.through(postgres.url), REDIS_URL: gatewaysRedis.through(redis) },
  });
  stack.defer(() => cluster.stop());
});

beforeEach(async () => {
  tellOnFailure(() => [...cluster.listeners, ...cluster.gateways]);
  clients = (
    await Promise.all(cluster.gateways.map(({ url }) => connectAll(5, { url: `${url.replace('http', 'ws')}/ws` })))
  ).flat();
  ledger = new Ledger({ databaseUrl: postgres.url, sqlWriters: 3 }).start();
  await ledger.more(50);
  return async () => {
    for (const proxy of [listenersPostgres, gatewaysPostgres, gatewaysRedis]) proxy.pass();
    for (const client of clients) client.stop();
    await ledger.stop();
  };
});

afterAll(() => stack.disposeAsync());

async function expectAllGot(): Promise<void> {
  await ledger.finish(clients);
  for (const client of clients) {
    expect(ledger.verify(client)).toEqual([]);
    expect(client.reconnects).toBe(0);
  }
}

/** Waits until a change that is written from now on reaches all clients. Resolves with how long that took, in ms. */
async function flowingMs(deadlineMs: number): Promise<number> {
  const counts = clients.map(({ count }) => count);
  return until('changes reach every client', () => clients.every(({ count }, i) => count > counts[i]!), deadlineMs);
}

test('a crash of Postgres under load loses nothing, and changes flow within 3 s of its return', async () => {
  for (let round = 0; round < 2; round++) {
    await postgres.restart('immediate');
    const ms = await flowingMs(3_000);
    console.log(`flowing ${ms.toFixed(0)} ms after Postgres was ready`);
    await ledger.more(50);
  }
  await expectAllGot();
});

test('a listener notices a silent Postgres within 5 s, delays no writer, and recovers', async () => {
  const [listener] = cluster.listeners;
  await leader(cluster.listeners);
  listenersPostgres.blackhole();
  const noticed = await until(
    'the listener notices',
    async () => {
      const { state } = await health(listener!);
      return state !== 'leading' && state !== undefined;
    },
    5_000,
  );
  console.log(`noticed after ${noticed.toFixed(0)} ms`);
  // the listener connects again, and meets silence
  const { accepted } = listenersPostgres;
  await until('the listener has tried again', () => listenersPostgres.accepted > accepted, 8_000);
  expect(ledger.longestPauseMs).toBeLessThan(1_000);
  listenersPostgres.pass();
  const ms = await flowingMs(10_000);
  console.log(`flowing ${ms.toFixed(0)} ms after the silence towards the listener`);
  expect(ms).toBeLessThan(5_000);
  await expectAllGot();
});

test('gateways receive the stream while Postgres is silent towards them', async () => {
  gatewaysPostgres.blackhole();
  await ledger.more(100);
  const write = () =>
    admin(postgres.url, `insert into items (name, value) values ('after a quiet time', 1) returning id`);
  // without changes the gateways query the log, and get no answer
  await ledger.stop();
  const quietSince = performance.now();
  await until('four seconds of quiet', () => performance.now() - quietSince > 4_000, 5_000);
  expect((await Promise.all(cluster.gateways.map((node) => health(node, '/health/ready')))).map((a) => a.http)).toEqual(
    [200, 200],
  );
  const writtenAt = performance.now();
  const [row] = await write();
  ledger.add(Number(row!['id']), 1);
  const key = `items/${row!['id']}`;
  await until('the change arrives', () => clients.every((client) => client.rows.has(key)), 3_000);
  console.log(`a change after a quiet time took ${(performance.now() - writtenAt).toFixed(0)} ms without Postgres`);
  gatewaysPostgres.pass();
  await expectAllGot();
});

test('a gateway without Redis and Postgres is not ready within about 5 s, and recovers', async () => {
  const answers = () => Promise.all(cluster.gateways.map((node) => health(node, '/health/ready')));
  const all = (status: number) => async () => (await answers()).every(({ http }) => http === status);
  gatewaysRedis.blackhole();
  gatewaysPostgres.blackhole();
  const lostMs = await until('no gateway is ready', all(503), 8_000);
  expect((await answers()).map(({ ready }) => ready)).toEqual([false, false]);
  gatewaysRedis.pass();
  gatewaysPostgres.pass();
  const backMs = await until('all gateways are ready', all(200), 5_000);
  console.log(`not ready after ${lostMs.toFixed(0)} ms, ready again ${backMs.toFixed(0)} ms after the end of it`);
  expect(lostMs).toBeGreaterThan(2_000);
  const ms = await flowingMs(5_000);
  console.log(`and flowing after ${ms.toFixed(0)} ms more`);
  await expectAllGot();
});
