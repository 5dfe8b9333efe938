// Redis loses what it held, dies, or falls silent, under load: clients get everything from the log in Postgres, none
// reconnects, and none waits longer than two seconds.

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

/** The end of each test: everything arrived once and in order on the first connection, in time, and the stream is back. */
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
  test('by FLUSHALL', async () => {
    for (let round = 0; round < 5; round++) {
      await redis.flushall();
      await ledger.more(10);
    }
    await expectUnharmed('FLUSHALL');
    expect(await redis.hget('{plank}:meta', 'last')).not.toBeNull();
  });

  test('by DEL of the stream only', async () => {
    await redis.del('{plank}:stream');
    await expectUnharmed('DEL of the stream');
  });

  test('by DEL of the meta key only', async () => {
    await redis.del('{plank}:meta');
    await expectUnharmed('DEL of meta');
  });

  test('behind its last entries, so that the listener has to fill a gap', async () => {
    const [listener] = cluster.listeners;
    const before = await metric(listener!, 'plank_publish_gaps_total');
    await redis.multi().del('{plank}:stream').hincrby('{plank}:meta', 'last', -3).exec();
    await until(
      'the listener met it',
      async () => (await metric(listener!, 'plank_publish_gaps_total')) > before,
      3_000,
    );
    await expectUnharmed('a gap before what comes next');
  });

  test('that a gateway has not read yet', async () => {
    const [gateway] = cluster.gateways;
    const before = await metric(gateway!, 'plank_stream_gaps_total');
    gateway!.signal('SIGSTOP');
    try {
      await ledger.more(20);
      await redis.xtrim('{plank}:stream', 'MAXLEN', 1);
    } finally {
      gateway!.signal('SIGCONT');
    }
    await until('the gateway met it', async () => (await metric(gateway!, 'plank_stream_gaps_total')) > before, 3_000);
    await expectUnharmed('trimmed before it was read');
  });
});

describe('Redis is away', () => {
  test('killed, gone for a while and restarted empty', async () => {
    const before = await fallbackReads();
    await server.kill();
    const counts = clients.map(({ count }) => count);
    await ledger.more(150);
    // delivery goes on meanwhile
    await until('each client got 50 more', () => clients.every(({ count }, i) => count > counts[i]! + 50), 3_000);
    expect(await fallbackReads()).toBeGreaterThan(before);
    expect(await metric(cluster.listeners[0]!, 'plank_publish_failures_total')).toBeGreaterThan(0);
    await server.restart();
    await until('the gateways read the stream again', allTail, 5_000);
    await expectUnharmed('killed');
  });

  test('silent towards the gateways, with both ends open', async () => {
    const counts = clients.map(({ count }) => count);
    toGateways.blackhole();
    const { accepted } = toGateways;
    await ledger.more(100);
    await until('each client got 50 more', () => clients.every(({ count }, i) => count > counts[i]! + 50), 3_000);
    expect(await allTail()).toBe(false);
    // connections that are made meanwhile meet silence too
    await until('the gateways have tried again', () => toGateways.accepted >= accepted + 2, 8_000);
    await ledger.more(100);
    toGateways.pass();
    const ms = await until('the gateways read the stream again', allTail, 5_000);
    console.log(`the gateways read the stream again ${ms.toFixed(0)} ms after it was healed`);
    await expectUnharmed('silent towards the gateways');
  });

  test('silent towards the listener, with both ends open', async () => {
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
