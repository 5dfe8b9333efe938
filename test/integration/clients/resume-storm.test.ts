// All clients come back at once, as after a cut network. The gateway serves them from its memory: 10,000 subscriptions cost Redis
// and Postgres the same as 100.

import { Redis } from 'ioredis';
import { expect, test } from 'vitest';
import { WebSocket } from 'ws';
import { startRedis } from '#deploy/local/redis.ts';
import { Gateway } from '#gateway/gateway.ts';
import { Listener } from '#listener/listener.ts';
import { RedisPublisher, RedisTail } from '#shared/log/fanout-redis.ts';
import { gatewaySchema, listenerSchema, readConfig } from '#shared/process/config.ts';
import { createLog } from '#shared/process/logger.ts';
import { createRegistry, gatewayMetrics, listenerMetrics } from '#shared/process/metrics.ts';
import { admin } from '../../support/servers/admin.ts';
import { testPool } from '../../support/servers/pool.ts';
import { createDatabase, postgresUrl } from '../../support/servers/servers.ts';
import { until } from '../../support/wait.ts';

const perSocket = 50;
const changes = 200;
/** CPU time of gateway and clients together, as they share this process */
const liveWithinCpuMs = 15_000;
/** commits that depend on time: without changes a gateway queries where the log ends */
const slack = 60;

interface Cost {
  fallbackReads: number;
  ranges: number;
  commits: number;
  liveMs: number;
  cpuMs: number;
}

test('10,000 subscriptions that resume cost Redis and Postgres the same as 100', async () => {
  const few = await storm(2);
  const many = await storm(200);
  expect(few.fallbackReads, JSON.stringify({ few, many })).toBe(0);
  expect(many.fallbackReads).toBe(0);
  expect(many.ranges).toBe(few.ranges);
  expect(Math.abs(many.commits - few.commits)).toBeLessThan(slack);
  expect(many.cpuMs).toBeLessThan(liveWithinCpuMs);
});

async function storm(sockets: number): Promise<Cost> {
  await using stack = new AsyncDisposableStack();
  const database = await createDatabase();
  stack.defer(() => database.drop());
  const redis = await startRedis();
  stack.defer(() => redis.stop());
  const pool = testPool(database.url, 2);
  const log = createLog('silent', 'test', 'test');
  const settings = {
    NODE_NAME: 'test',
    PORT: '0',
    CANARY_INTERVAL_MS: '0',
    REDIS_URL: redis.url,
    DATABASE_URL: database.url,
  };
  const publisher = new RedisPublisher(redis.url, { name: 'plank', streamBytes: 1024 ** 2, log });
  stack.defer(() => publisher.stop());
  const tail = new RedisTail(redis.url, { name: 'plank', log });
  stack.defer(() => tail.stop());
  await pool.query(`create table todo (id int primary key, grp int); select plank.attach('todo')`);
  const listener = new Listener({
    config: readConfig(listenerSchema, settings),
    publisher,
    log,
    metrics: listenerMetrics(createRegistry('listener')),
  });
  stack.defer(() => listener.stop());
  await listener.start();
  const registry = createRegistry('gateway');
  const metrics = gatewayMetrics(registry);
  const gateway = new Gateway({ config: readConfig(gatewaySchema, settings), tail, log, metrics });
  stack.defer(() => gateway.stop());
  await gateway.start();
  const health = async () =>
    ((await (await fetch(`http://127.0.0.1:${gateway.port}/health`)).json()) as { position: string }).position;
  const start = /^(e\d+)\.(\d+)$/.exec(await health())!;
  const positionOf = (change: number) => `${start[1]}.${Number(start[2]) + change}`;
  // one transaction each, so that there are many batches
  for (let id = 1; id <= changes; id++) await pool.query('insert into todo values ($1, $2)', [id, id % perSocket]);
  await until('the gateway has all changes', async () => (await health()) === positionOf(changes), 5_000);
  // their work does not count
  await listener.stop();
  await pool.end();

  const redisClient = new Redis(redis.url);
  stack.defer(() => redisClient.disconnect());
  const before = await rangesOf(redisClient);
  const commits = await commitsOf(database.name);
  const clients = await Promise.all(Array.from({ length: sockets }, () => connected(gateway.port)));
  stack.defer(() => {
    for (const { ws } of clients) ws.terminate();
  });
  let expected = 0;
  const started = performance.now();
  const cpu = process.cpuUsage();
  for (const [i, { ws }] of clients.entries()) {
    for (let grp = 0; grp < perSocket; grp++) {
      const from = (i * 31 + grp * 17) % changes;
      expected += Array.from({ length: changes - from }, (_, n) => from + n + 1).filter(
        (id) => id % perSocket === grp,
      ).length;
      // no channel is shared between sockets
      const where = { grp, id: { ne: -i } };
      ws.send(JSON.stringify({ type: 'subscribe', id: grp + 1, table: 'todo', where, from: positionOf(from) }));
    }
  }
  await until('every subscription is live', () => clients.every(({ got }) => got.live === perSocket), 50_000);
  const liveMs = Math.round(performance.now() - started);
  const { user, system } = process.cpuUsage(cpu);
  const cpuMs = Math.round((user + system) / 1_000);
  expect(clients.reduce((sum, { got }) => sum + got.change, 0)).toBe(expected);
  expect(clients.some(({ got }) => got.other > 0)).toBe(false);
  const ranges = (await rangesOf(redisClient)) - before;
  const fallbackReads = (await metrics.fallbackReads.get()).values.reduce((sum, { value }) => sum + value, 0);
  // a session reports its statistics when it ends
  await gateway.stop();
  await until('the sessions have ended', async () => (await sessionsOf(database.name)) === 0, 5_000);
  return { fallbackReads, ranges, commits: (await commitsOf(database.name)) - commits, liveMs, cpuMs };
}

async function connected(port: number) {
  const ws = new WebSocket(`ws://127.0.0.1:${port}/ws`, 'plank.v1');
  const got = { live: 0, change: 0, other: 0 };
  ws.on('message', (data) => {
    const { type } = JSON.parse((data as Buffer).toString()) as { type: string };
    if (type === 'live' || type === 'change') got[type]++;
    else if (type !== 'ok' && type !== 'pos' && type !== 'welcome') got.other++;
  });
  await new Promise((resolve, reject) => ws.on('open', resolve).on('error', reject));
  ws.send('{"type":"hello"}');
  return { ws, got };
}

async function rangesOf(redis: Redis): Promise<number> {
  return Number(/cmdstat_xrange:calls=(\d+)/.exec(await redis.info('commandstats'))?.[1] ?? 0);
}

async function commitsOf(database: string): Promise<number> {
  const [row] = await admin(
    await postgresUrl(),
    `select xact_commit from pg_stat_database where datname = '${database}'`,
  );
  return Number(row!.xact_commit);
}

async function sessionsOf(database: string): Promise<number> {
  const [row] = await admin(await postgresUrl(), `select count(*) from pg_stat_activity where datname = '${database}'`);
  return Number(row!.count);
}
