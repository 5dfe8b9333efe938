// The leading listener is killed or paused at the worst moments: another leads soon, the stream stays dense, and clients
// get each change once.

import { Redis } from 'ioredis';
import { afterAll, beforeAll, beforeEach, describe, expect, test } from 'vitest';
import { Cluster, type ClusterNode } from '#deploy/local/cluster.ts';
import { BatchReader, openBatch } from '#shared/log/batch.ts';
import { admin } from '../support/servers/admin.ts';
import { createDatabase, redisUrl } from '../support/servers/servers.ts';
import { connectAll, type TestClient } from '../support/stage/client.ts';
import { health, leader, metric, tellOnFailure } from '../support/stage/nodes.ts';
import { TcpProxy } from '../support/stage/tcp-proxy.ts';
import { Ledger } from '../support/truth/ledger.ts';
import { until } from '../support/wait.ts';

const takeoverMs = 4_000;

const stack = new AsyncDisposableStack();
let cluster: Cluster;
let databaseUrl: string;
let name: string;
let redis: Redis;
let proxy: TcpProxy;
let clients: TestClient[] = [];
let ledger: Ledger | undefined;

beforeAll(async () => {
  const database = await createDatabase();
  stack.defer(() => database.drop());
  ({ url: databaseUrl, name } = database);
  const directRedisUrl = await redisUrl();
  proxy = await TcpProxy.start(directRedisUrl);
  stack.defer(() => proxy.stop());
  redis = new Redis(directRedisUrl);
  stack.defer(() => redis.disconnect());
  cluster = await Cluster.start({
    gateways: 2,
    listeners: 2,
    balanced: false,
    databaseUrl,
    redisUrl: directRedisUrl,
    env: { PLANK_LOG_NAME: name },
    listenerEnv: { REDIS_URL: proxy.through(directRedisUrl) },
  });
  stack.defer(() => cluster.stop());
});

beforeEach(async () => {
  tellOnFailure(() => [...cluster.listeners, ...cluster.gateways]);
  await ledger?.stop();
  for (const client of clients) client.stop();
  clients = (
    await Promise.all(cluster.gateways.map(({ url }) => connectAll(5, { url: `${url.replace('http', 'ws')}/ws` })))
  ).flat();
});

afterAll(async () => {
  await ledger?.stop();
  for (const client of clients) client.stop();
  await stack.disposeAsync();
});

function write(options: { restUrl?: string; perSecond?: number } = {}): Ledger {
  ledger = new Ledger({ databaseUrl, ...options }).start();
  return ledger;
}

async function kill(node: ClusterNode): Promise<void> {
  node.signal('SIGKILL');
  await until(`${node.name} is gone`, () => !node.running, 2_000);
}

async function newLeaderMs(others: readonly ClusterNode[], killedAt: number): Promise<number> {
  await leader(others, takeoverMs + 2_000);
  return performance.now() - killedAt;
}

/** All seqs of the stream, in its order. */
async function streamedSeqs(): Promise<number[]> {
  const entries = (await redis.callBuffer('XRANGE', `{${name}}:stream`, '-', '+')) as [Buffer, Buffer[]][];
  return entries.flatMap(([, [, bytes]]) => {
    const reader = new BatchReader(openBatch(bytes!));
    const seqs: number[] = [];
    while (reader.next()) seqs.push(reader.seq);
    return seqs;
  });
}

async function logEnd(): Promise<number> {
  return Number((await admin(databaseUrl, 'select newest from plank.extent()'))[0]!['newest']);
}

async function streamEnd(): Promise<number> {
  return Number(await redis.hget(`{${name}}:meta`, 'last'));
}

/** The stream holds each seq from its first to the log's last once, in order. */
async function expectDenseStream(): Promise<void> {
  const seqs = await streamedSeqs();
  expect(seqs).toEqual(seqs.map((_, index) => seqs[0]! + index));
  expect(seqs.at(-1)).toBe(await logEnd());
}

async function expectAllGot(ledger: Ledger): Promise<void> {
  await ledger.finish(clients);
  for (const client of clients) {
    expect(ledger.verify(client)).toEqual([]);
    expect(client.reconnects).toBe(0);
  }
  await expectDenseStream();
}

describe('a leader that is killed', () => {
  test('the standby leads and delivers when the leader is killed while nothing happens', async () => {
    const first = await leader(cluster.listeners);
    const killedAt = performance.now();
    await kill(first);
    const ms = await newLeaderMs(cluster.listeners, killedAt);
    console.log(`idle: the standby led ${ms.toFixed(0)} ms after the kill`);
    expect(ms).toBeLessThan(takeoverMs);
    const ledger = write();
    await ledger.more(20);
    await expectAllGot(ledger);
    await first.start();
  });

  test('the standby leads when the leader is killed under load: no change is lost, doubled or out of order', async () => {
    const first = await leader(cluster.listeners);
    const ledger = write({ restUrl: cluster.url, perSecond: 100 });
    await ledger.more(100);
    const killedAt = performance.now();
    await kill(first);
    const ms = await newLeaderMs(cluster.listeners, killedAt);
    console.log(`busy: the standby led ${ms.toFixed(0)} ms after the kill`);
    expect(ms).toBeLessThan(takeoverMs);
    await ledger.more(100);
    await expectAllGot(ledger);
    // writers never waited for the listener
    expect(ledger.longestPauseMs).toBeLessThan(1_000);
    await first.start();
  });

  test('the next leader publishes changes that the killed one drained and did not publish', async () => {
    const first = await leader(cluster.listeners);
    const ledger = write({ perSecond: 30 });
    await ledger.more(20);
    proxy.holdRequests();
    await until(
      'a batch is held before Redis',
      async () => proxy.heldBytes > 0 && (await logEnd()) > (await streamEnd()),
      5_000,
    );
    const published = await streamEnd();
    await kill(first);
    proxy.pass();
    expect(await streamEnd()).toBe(published);
    await leader(cluster.listeners);
    await ledger.more(20);
    await expectAllGot(ledger);
    await first.start();
  });

  test('a batch whose reply from Redis was lost with the leader is not published twice', async () => {
    const first = await leader(cluster.listeners);
    const ledger = write({ perSecond: 30 });
    await ledger.more(20);
    // nothing is left to publish, so that the next request carries a new batch
    await until('the stream is level with the log', async () => (await streamEnd()) === (await logEnd()), 5_000);
    const before = await streamEnd();
    proxy.holdReplies();
    await until(
      'Redis has answered, and the answer is held',
      async () => proxy.heldBytes > 0 && (await streamEnd()) > before,
      5_000,
    );
    await kill(first);
    proxy.pass();
    await leader(cluster.listeners);
    await ledger.more(20);
    await expectAllGot(ledger);
    await first.start();
  });
});

describe('a leader that is paused', () => {
  test('a leader paused for longer than its lease drains no more when it resumes, and stands by', async () => {
    const first = await leader(cluster.listeners);
    const second = cluster.listeners.find((node) => node !== first)!;
    const ledger = write({ perSecond: 60 });
    await ledger.more(50);
    const pausedAt = performance.now();
    first.signal('SIGSTOP');
    const ms = await newLeaderMs([second], pausedAt);
    console.log(`paused: the standby led ${ms.toFixed(0)} ms after the pause`);
    expect(ms).toBeLessThan(takeoverMs);
    await until('eight seconds have passed', () => performance.now() - pausedAt > 8_000, 9_000);
    first.signal('SIGCONT');
    await until('the former leader stands by', async () => (await health(first)).state === 'standby', 5_000);
    expect((await health(second)).state).toBe('leading');
    const drained = await metric(first, 'plank_drained_events_total');
    await ledger.more(50);
    expect(await metric(first, 'plank_drained_events_total')).toBe(drained);
    expect(await metric(first, 'plank_leader')).toBe(0);
    expect(await metric(second, 'plank_term')).toBeGreaterThan(await metric(first, 'plank_term'));
    await expectAllGot(ledger);
  });
});
