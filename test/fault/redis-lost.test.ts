// Redis loses its data, dies, or falls silent, under load: clients get every change from the log in Postgres, none reconnects,
// and none waits longer than two seconds.

import { Redis } from 'ioredis';
import { afterAll, beforeAll, beforeEach, describe, expect, test } from 'vitest';
import { Cluster } from '#deploy/local/cluster.ts';
import { type LocalRedis, startRedis } from '#deploy/local/redis.ts';
import { createDatabase } from '../support/servers/servers.ts';
import { connectAll, type TestClient } from '../support/stage/client.ts';
import { health, metric, tellOnFailure } from '../support/stage/nodes.ts';
import { TcpProxy } from '../support/stage/tcp-proxy.ts';
import { Ledger } from '../support/truth/ledger.ts';
import { until } from '../support/wait.ts';

const longestGapMs = 2_000;

const stack = new AsyncDisposableStack();
let cluster: Cluster;
let databaseUrl: string;
let server: LocalRedis;
let redis: Redis;
let toGateways: TcpProxy;
let toListener: TcpProxy;
let clients: TestClient[] = [];
let ledger: Ledger;

beforeAll(async () => {
  const database = await createDatabase();
  stack.defer(() => database.drop());
  databaseUrl = database.url;
  server = await startRedis();
  stack.defer(() => server.stop());
  redis = new Redis(server.url);
  redis.on('error', () => {});
  stack.defer(() => redis.disconnect());
  toGateways = await TcpProxy.start(server.url);
  stack.defer(() => toGateways.stop());
  toListener = await TcpProxy.start(server.url);
  stack.defer(() => toListener.stop());
  cluster = await Cluster.start({
    gateways: 2,
    balanced: false,
    databaseUrl,
    redisUrl: server.url,
    gatewayEnv: { REDIS_URL: toGateways.through(server.url) },
    listenerEnv: { REDIS_URL: toListener.through(server.url) },
  });
  stack.defer(() => cluster.stop());
});

beforeEach(async () => {
  tellOnFailure(() => [...cluster.listeners, ...cluster.gateways]);
  clients = (
    await Promise.all(cluster.gateways.map(({ url }) => connectAll(10, { url: `${url.replace('http', 'ws')}/ws` })))
  ).flat();
  ledger = new Ledger({ databaseUrl, restUrl: cluster.url }).start();
  await ledger.more(50);
  return async () => {
    for (const client of clients) client.stop();
    await ledger.stop();
  };
});

afterAll(() => stack.disposeAsync());

async function allTail(): Promise<boolean> {
  const answers = await Promise.all(cluster.gateways.map((node) => health(node)));
  return answers.every(({ changes }) => changes === 'tailing');
}

async function fallbackReads(): Promise<number> {
  const counts = await Promise.all(cluster.gateways.map((node) => metric(node, 'plank_fallback_reads_total')));
  return counts.reduce((sum, count) => sum + count);
}

/** At the end of each test: every change arrived once, in order, in time, on the first connection, and the stream is back. */
async function expectUnharmed(what: string): Promise<void> {
  await ledger.more(50);
  await ledger.finish(clients);
  for (const client of clients) {
    expect(ledger.verify(client)).toEqual([]);
    expect(client.reconnects).toBe(0);
  }
  const gap = Math.max(...clients.flatMap(({ latencies }) => latencies));
  console.log(
    `${what}: the latest change came ${gap.toFixed(0)} ms after its write, the longest pause of a writer was ${ledger.longestPauseMs.toFixed(0)} ms`,
  );
  expect(gap).toBeLessThan(longestGapMs);
  await until('the gateways read the stream again', allTail, 5_000);
}

describe('Redis loses data', () => {
  test('clients get every change when FLUSHALL empties Redis', async () => {
    for (let round = 0; round < 5; round++) {
      await redis.flushall();
      await ledger.more(10);
    }
    await expectUnharmed('FLUSHALL');
    expect(await redis.hget('{plank}:meta', 'last')).not.toBeNull();
  });

  test('clients get every change when only the stream is deleted', async () => {
    await redis.del('{plank}:stream');
    await expectUnharmed('DEL of the stream');
  });

  test('clients get every change when only the meta key is deleted', async () => {
    await redis.del('{plank}:meta');
    await expectUnharmed('DEL of meta');
  });

  test('the listener fills a gap when Redis lost its last entries', async () => {
    const [listener] = cluster.listeners;
    const before = await metric(listener!, 'plank_publish_gaps_total');
    await redis.multi().del('{plank}:stream').hincrby('{plank}:meta', 'last', -3).exec();
    await until(
      'the listener met the gap',
      async () => (await metric(listener!, 'plank_publish_gaps_total')) > before,
      3_000,
    );
    await expectUnharmed('a gap before the next batch');
  });

  test('a gateway reads the log when Redis lost entries that it had not read yet', async () => {
    const [gateway] = cluster.gateways;
    const before = await metric(gateway!, 'plank_stream_gaps_total');
    gateway!.signal('SIGSTOP');
    try {
      await ledger.more(20);
      await redis.xtrim('{plank}:stream', 'MAXLEN', 1);
    } finally {
      gateway!.signal('SIGCONT');
    }
    await until(
      'the gateway met the gap',
      async () => (await metric(gateway!, 'plank_stream_gaps_total')) > before,
      3_000,
    );
    await expectUnharmed('trimmed before it was read');
  });
});

describe('Redis is away', () => {
  test('clients get every change when Redis is killed, gone for a while and restarted empty', async () => {
    const before = await fallbackReads();
    await server.kill();
    const counts = clients.map(({ count }) => count);
    await ledger.more(150);
    // changes are delivered meanwhile
    await until('each client got 50 more', () => clients.every(({ count }, i) => count > counts[i]! + 50), 3_000);
    expect(await fallbackReads()).toBeGreaterThan(before);
    expect(await metric(cluster.listeners[0]!, 'plank_publish_failures_total')).toBeGreaterThan(0);
    await server.restart();
    await until('the gateways read the stream again', allTail, 5_000);
    await expectUnharmed('killed');
  });

  test('clients get every change when Redis is silent towards the gateways', async () => {
    const counts = clients.map(({ count }) => count);
    toGateways.blackhole();
    const { accepted } = toGateways;
    await ledger.more(100);
    await until('each client got 50 more', () => clients.every(({ count }, i) => count > counts[i]! + 50), 3_000);
    expect(await allTail()).toBe(false);
    // new connections meet silence, too
    await until('the gateways have tried again', () => toGateways.accepted >= accepted + 2, 8_000);
    await ledger.more(100);
    toGateways.pass();
    const ms = await until('the gateways read the stream again', allTail, 5_000);
    console.log(`the gateways read the stream again ${ms.toFixed(0)} ms after it was healed`);
    await expectUnharmed('silent towards the gateways');
  });

  test('clients get every change when Redis is silent towards the listener', async () => {
    toListener.blackhole();
    const { accepted } = toListener;
    await until('the listener has tried again', () => toListener.accepted > accepted, 8_000);
    await ledger.more(100);
    toListener.pass();
    await expectUnharmed('silent towards the listener');
    const caughtUp = async () => {
      const newest = await metric(cluster.listeners[0]!, 'plank_head_seq');
      return Number(await redis.hget('{plank}:meta', 'last')) === newest;
    };
    await until('the stream has everything', caughtUp, 5_000);
  });
});
