// With a Redis that is slow for each batch, batches become larger and drains go on. Batches that Redis has not taken stay in
// the log, not in the listener's memory.

import { Client } from 'pg';
import { afterAll, beforeAll, beforeEach, expect, test } from 'vitest';
import { Cluster, type ClusterNode } from '#deploy/local/cluster.ts';
import { startRedis } from '#deploy/local/redis.ts';
import { admin } from '../support/servers/admin.ts';
import { createDatabase } from '../support/servers/servers.ts';
import { TestClient } from '../support/stage/client.ts';
import { metric, tellOnFailure } from '../support/stage/nodes.ts';
import { TcpProxy } from '../support/stage/tcp-proxy.ts';
import { until } from '../support/wait.ts';

const megabyte = 1024 ** 2;
const rowBytes = 2_000;

const stack = new AsyncDisposableStack();
let cluster: Cluster;
let listener: ClusterNode;
let toRedis: TcpProxy;
let writer: Client;
let client: TestClient;

beforeAll(async () => {
  const database = await createDatabase();
  stack.defer(() => database.drop());
  await admin(
    database.url,
    'create table notes (id bigint generated always as identity primary key, value integer, body text)',
  );
  await admin(database.url, `select plank.attach('notes')`);
  const redis = await startRedis();
  stack.defer(() => redis.stop());
  toRedis = await TcpProxy.start(redis.url);
  stack.defer(() => toRedis.stop());
  cluster = await Cluster.start({
    gateways: 1,
    balanced: false,
    databaseUrl: database.url,
    redisUrl: redis.url,
    env: { CANARY_INTERVAL_MS: '0' },
    listenerEnv: { REDIS_URL: toRedis.through(redis.url), STREAM_BYTES: `${8 * megabyte}` },
  });
  stack.defer(() => cluster.stop());
  listener = cluster.listeners[0]!;
  writer = new Client({ connectionString: database.url });
  await writer.connect();
  stack.defer(() => writer.end());
  client = await TestClient.connect({ url: cluster.webSocketUrl });
  stack.defer(() => client.stop());
});

beforeEach(() => tellOnFailure(() => [...cluster.listeners, ...cluster.gateways]));

afterAll(() => stack.disposeAsync());

let written = 0;

/** Writes `transactions` times `each` rows of `rowBytes`. */
async function write(transactions: number, each: number): Promise<void> {
  for (let i = 0; i < transactions; i++) {
    await writer.query({
      name: 'write',
      text: `insert into notes (body, value) select repeat('x', $1), 1 from generate_series(1, $2::integer)`,
      values: [rowBytes, each],
    });
    written += each;
  }
}

/** Waits until the client has every change, once and in order. */
async function arrived(deadlineMs: number): Promise<void> {
  await until('everything arrives', () => client.count >= written, deadlineMs);
  expect(client.count).toBe(written);
  expect(client.problems).toEqual([]);
}

const drains = async () => ({
  count: await metric(listener, 'plank_drain_events_count'),
  events: await metric(listener, 'plank_drain_events_sum'),
});

/** Events in each drain that found any, while 600 transactions of one row are written. */
async function eventsADrain(): Promise<number> {
  const before = await drains();
  await write(600, 1);
  await arrived(10_000);
  const after = await drains();
  return (after.events - before.events) / (after.count - before.count);
}

test('a drain waits for the batch before it, and finds more changes', async () => {
  await eventsADrain();
  const quick = await eventsADrain();
  toRedis.delay(40);
  const slow = await eventsADrain();
  toRedis.pass();
  console.log(`events a drain: ${quick.toFixed(1)}, and ${slow.toFixed(1)} behind a Redis that takes 80 ms`);
  expect(slow).toBeGreaterThan(2 * quick);
});

test('batches that Redis does not take in time are not kept in memory, and arrive', async () => {
  await write(20, 100);
  await arrived(10_000);
  const before = await metric(listener, 'process_resident_memory_bytes');
  toRedis.delay(300);
  let most = before;
  // 120 MB of rows, and as much again in a process that would keep them
  for (let i = 0; i < 6; i++) {
    await write(100, 100);
    most = Math.max(most, await metric(listener, 'process_resident_memory_bytes'));
  }
  // drains do not wait for Redis
  const drained = async () => (await metric(listener, 'plank_drained_events_total')) >= written;
  await until('everything is drained', drained, 20_000);
  most = Math.max(most, await metric(listener, 'process_resident_memory_bytes'));
  const lag = written - (await metric(listener, 'plank_published_events_total'));
  toRedis.pass();
  const mb = (bytes: number) => Math.round(bytes / megabyte);
  console.log(`${lag} of ${written} events lag; memory ${mb(before)} MB, at most ${mb(most)} MB`);
  expect(lag).toBeGreaterThan(10_000);
  expect(most - before).toBeLessThan(96 * megabyte);
  await arrived(60_000);
  const isWhole = async () => (await metric(listener, 'plank_stream_lag_events')) === 0;
  await until('the stream is whole again', isWhole, 30_000);
});
