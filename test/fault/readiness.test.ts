// A gateway's readiness is true: it is ready while it can tail Redis or read the log, not ready within five seconds when it
// can do neither, and ready again afterwards. It counts canaries that do not come as missed.

import { setTimeout as delay } from 'node:timers/promises';
import { afterAll, beforeAll, beforeEach, describe, expect, test } from 'vitest';
import { Cluster, type ClusterNode } from '#deploy/local/cluster.ts';
import { createDatabase, redisUrl } from '../support/servers/servers.ts';
import { health, metric, tellOnFailure } from '../support/stage/nodes.ts';
import { TcpProxy } from '../support/stage/tcp-proxy.ts';
import { until } from '../support/wait.ts';

const deadlineMs = 5_000;

const stack = new AsyncDisposableStack();
let cluster: Cluster;
let gateway: ClusterNode;
let toRedis: TcpProxy;
let toPostgres: TcpProxy;

beforeAll(async () => {
  const database = await createDatabase();
  stack.defer(() => database.drop());
  const redis = await redisUrl();
  toRedis = await TcpProxy.start(redis);
  stack.defer(() => toRedis.stop());
  toPostgres = await TcpProxy.start(database.url);
  stack.defer(() => toPostgres.stop());
  cluster = await Cluster.start({
    gateways: 1,
    balanced: false,
    databaseUrl: database.url,
    redisUrl: redis,
    env: { PLANK_LOG_NAME: database.name },
    listenerEnv: { CANARY_INTERVAL_MS: '500' },
    gatewayEnv: { REDIS_URL: toRedis.through(redis), DATABASE_URL: toPostgres.through(database.url) },
  });
  stack.defer(() => cluster.stop());
  gateway = cluster.gateways[0]!;
});

beforeEach(() => tellOnFailure(() => [...cluster.listeners, ...cluster.gateways]));

afterAll(() => stack.disposeAsync());

const isReady = async () => (await health(gateway, '/health/ready')).http === 200;
const seen = () => metric(gateway, 'plank_canary_seconds_count');
const missed = () => metric(gateway, 'plank_canary_missed_total');

/** The gateway is ready and canaries come, for longer than a gateway waits before it reports that it is not ready. */
async function expectServed(): Promise<void> {
  const before = await seen();
  const end = performance.now() + 6_000;
  while (performance.now() < end) {
    expect(await isReady()).toBe(true);
    await delay(100);
  }
  expect(await seen()).toBeGreaterThan(before + 3);
}

async function expectRecovered(): Promise<void> {
  const ms = await until('the gateway is ready', isReady, deadlineMs);
  const before = await seen();
  await until('canaries come', async () => (await seen()) > before + 2, deadlineMs);
  console.log(`ready again after ${ms.toFixed(0)} ms`);
}

describe('a gateway', () => {
  test('a gateway stays ready without Redis', async () => {
    toRedis.blackhole();
    await expectServed();
    toRedis.pass();
    await expectRecovered();
  });

  test('a gateway stays ready without Postgres', async () => {
    toPostgres.blackhole();
    await expectServed();
    toPostgres.pass();
    await expectRecovered();
  });

  test.each(['silent', 'refusing'])(
    'a gateway without both (%s) is not ready within five seconds, and recovers',
    async (how) => {
      await until('the gateway tails Redis', async () => (await health(gateway)).changes === 'tailing', deadlineMs);
      const before = await missed();
      const cut = () => {
        for (const proxy of [toRedis, toPostgres]) {
          if (how === 'silent') proxy.blackhole();
          else proxy.cut();
        }
      };
      // new connections are cut as well
      const cutting = how === 'refusing' ? setInterval(cut, 1) : undefined;
      cut();
      const ms = await until('the gateway is not ready', async () => !(await isReady()), deadlineMs);
      console.log(`not ready ${ms.toFixed(0)} ms after both were lost (${how})`);
      const { reason } = (await (await fetch(`${gateway.url}/health/ready`)).json()) as { reason: string };
      expect(reason).toBe('neither the stream nor the log in Postgres can be read');
      expect(await metric(gateway, 'plank_ready')).toBe(0);
      expect((await health(gateway, '/health/live')).http).toBe(200);
      expect(await missed()).toBeGreaterThan(before);
      clearInterval(cutting);
      for (const proxy of [toRedis, toPostgres]) proxy.pass();
      await expectRecovered();
    },
  );

  test('a gateway misses canaries while no listener leads, and stays ready', async () => {
    const before = await missed();
    await cluster.listeners[0]!.stop();
    await until('canaries are missed', async () => (await missed()) > before + 1, deadlineMs);
    expect(await isReady()).toBe(true);
    await cluster.listeners[0]!.start();
    await expectRecovered();
  });
});
