// Clients that read slowly, or not at all for a while, cost the gateway no memory and the others no time. They catch up, or are
// closed with the reason that the next change is no longer kept.

import { Client } from 'pg';
import { afterAll, beforeAll, beforeEach, describe, expect, test } from 'vitest';
import { Cluster, type ClusterNode } from '#deploy/local/cluster.ts';
import { admin } from '../support/servers/admin.ts';
import { createDatabase, redisUrl } from '../support/servers/servers.ts';
import { connectAll, quantile, TestClient } from '../support/stage/client.ts';
import { metric, tellOnFailure } from '../support/stage/nodes.ts';
import { until } from '../support/wait.ts';

const megabyte = 1024 ** 2;
const ringBytes = 2 * megabyte;
const maxQueueBytes = megabyte;
const rowBytes = 100_000;

const stack = new AsyncDisposableStack();
let cluster: Cluster;
let gateway: ClusterNode;
let databaseUrl: string;
let url: string;
let writer: Client;

beforeAll(async () => {
  const database = await createDatabase();
  stack.defer(() => database.drop());
  databaseUrl = database.url;
  // before the gateways start: running ones would notice the table a moment later
  await admin(
    databaseUrl,
    'create table big (id integer primary key, value double precision, updated_at timestamptz, body text)',
  );
  await admin(databaseUrl, `select plank.attach('big')`);
  cluster = await Cluster.start({
    gateways: 1,
    balanced: false,
    databaseUrl,
    redisUrl: await redisUrl(),
    env: { PLANK_LOG_NAME: database.name },
    gatewayEnv: { RING_BYTES: `${ringBytes}`, MAX_QUEUE_BYTES: `${maxQueueBytes}` },
    // Redis keeps less than slow clients lag by, so that they need the log
    listenerEnv: { STREAM_BYTES: `${2 * megabyte}` },
  });
  stack.defer(() => cluster.stop());
  writer = new Client({ connectionString: databaseUrl });
  await writer.connect();
  stack.defer(() => writer.end());
  gateway = cluster.gateways[0]!;
  url = cluster.webSocketUrl;
});

beforeEach(() => tellOnFailure(() => [...cluster.listeners, ...cluster.gateways]));

afterAll(() => stack.disposeAsync());

let lastId = 0;

/** Writes rows of `bytes`, `each` in a transaction, and waits after each transaction until `done`. */
async function writeBig(count: number, done: () => boolean = () => true, each = 5, bytes = rowBytes): Promise<void> {
  for (let i = 0; i < count; i += each) {
    const values = Array.from({ length: each }, () => `(${++lastId}, 1, clock_timestamp(), repeat('x', ${bytes}))`);
    await writer.query(`insert into big values ${values.join(', ')}`);
    await until('the others follow', done, 10_000);
  }
}

function expectRows(client: TestClient, table: string, from: number, to: number): void {
  expect(client.problems).toEqual([]);
  const expected = Array.from({ length: to - from + 1 }, (_, i) => `${table}/${from + i}`);
  expect([...client.rows.keys()].filter((key) => key.startsWith(`${table}/`))).toEqual(expected);
}

describe('a client that reads nothing', () => {
  test('a client that reads nothing costs no memory and delays no other, then gets every change in order', async () => {
    const others = await connectAll(3, { url, tables: 'big' });
    const slow = await TestClient.connect({ url, tables: 'big' });
    // the memory of this process with such rows and no slow client
    await writeBig(100, () => others.every(({ rows }) => rows.size >= lastId - 10));
    await until('all have them', () => [slow, ...others].every(({ rows }) => rows.size === lastId), 10_000);
    const before = await metric(gateway, 'process_resident_memory_bytes');

    slow.pause();
    let peak = 0;
    let fellBehind = false;
    for (let i = 0; i < 10; i++) {
      await writeBig(100, () => others.every(({ rows }) => rows.size >= lastId - 10));
      peak = Math.max(peak, await metric(gateway, 'process_resident_memory_bytes'));
      fellBehind ||= (await metric(gateway, 'plank_catching_up')) === 1;
    }
    await until('the others have all', () => others.every(({ rows }) => rows.size === lastId), 10_000);
    expect(fellBehind).toBe(true);
    expect(slow.rows.size).toBeLessThan(lastId - 500);
    const p99 = quantile(
      others.flatMap(({ latencies }) => latencies),
      0.99,
    );
    const grown = (peak - before) / megabyte;
    console.log(`others' p99 ${p99.toFixed(0)} ms; memory grew by ${grown.toFixed(1)} MB over 100 MB of changes`);
    expect(p99).toBeLessThan(2_000);
    // the bounds of ring and queue, and room for garbage; an unbounded queue would hold the 100 MB
    expect(grown).toBeLessThan((ringBytes + maxQueueBytes) / megabyte + 75);
    expect(await metric(gateway, 'plank_ring_bytes')).toBeLessThan(ringBytes + 2 * megabyte);

    slow.resume();
    const ms = await until('the client has caught up', () => slow.rows.size === lastId, 20_000);
    console.log(`100 MB behind, it caught up in ${ms.toFixed(0)} ms`);
    for (const client of [slow, ...others]) {
      expectRows(client, 'big', 1, lastId);
      expect(client.closeCodes).toEqual([]);
    }
    await until('the client is live again', async () => (await metric(gateway, 'plank_catching_up')) === 0, 5_000);
    for (const client of [slow, ...others]) client.stop();
  });

  test('many clients that read nothing hold history within the bound, then get every change in order', async () => {
    const { epoch, newest } = (await admin(databaseUrl, 'select epoch, newest from plank.extent()'))[0]!;
    const [count, apart] = [400, 12];
    await writeBig(count);
    // each begins a page after the one before, so that no page of history is shared
    const first = Number(newest);
    const slow = await Promise.all(
      Array.from({ length: 20 }, async (_, i) => {
        const client = await TestClient.connect({ url, since: `e${epoch}.${first + i * apart}`, tables: 'big' });
        client.pause();
        return { client, from: lastId - count + 1 + i * apart };
      }),
    );
    await until(
      'every client is slow',
      async () => (await metric(gateway, 'plank_slow_clients')) === slow.length,
      15_000,
    );
    const held = await metric(gateway, 'plank_history_held_bytes');
    console.log(`${slow.length} clients hold ${(held / megabyte).toFixed(1)} MB of history`);
    expect(held).toBeGreaterThan(ringBytes / 2);
    expect(held).toBeLessThanOrEqual(ringBytes);
    for (const { client } of slow) client.resume();
    await until('all have caught up', () => slow.every(({ client }) => client.rows.has(`big/${lastId}`)), 30_000);
    for (const { client, from } of slow) expectRows(client, 'big', from, lastId);
    expect(await metric(gateway, 'plank_history_held_bytes')).toBe(0);
    for (const { client } of slow) client.stop();
  });

  test('a client that reads little by little catches up', async () => {
    const from = lastId + 1;
    const client = await TestClient.connect({ url, tables: 'big' });
    const watcher = await TestClient.connect({ url, tables: 'big' });
    client.pause();
    const follow = () => watcher.rows.has(`big/${lastId}`);
    // how much the kernel buffers before the gateway notices depends on the system
    const behind = async () => (await metric(gateway, 'plank_catching_up')) === 1;
    for (let i = 0; i < 40 && !(await behind()); i++) await writeBig(50, follow);
    expect(await behind()).toBe(true);
    await writeBig(200, follow, 1, 40_000);
    while (client.rows.size < lastId - from + 1) await client.sip();
    expectRows(client, 'big', from, lastId);
    expect(client.closeCodes).toEqual([]);
    client.stop();
    watcher.stop();
  });
});

describe('a client that lags behind the retention', () => {
  test('a client that was too slow is closed with 4508', async () => {
    const slow = await TestClient.connect({ url, tables: 'big', reconnects: false });
    // changes that the gateway has not read yet must not be purged: it would begin again, with all its clients
    const watcher = await TestClient.connect({ url, tables: 'big' });
    const follow = () => watcher.rows.has(`big/${lastId}`);
    slow.pause();
    const from = lastId + 1;
    const behind = async () => (await metric(gateway, 'plank_catching_up')) === 1;
    for (let i = 0; i < 40 && !(await behind()); i++) await writeBig(50, follow);
    // more than memory and Redis hold
    await writeBig(150, follow);
    const purge = async () => {
      const [row] = await admin(
        databaseUrl,
        `select plank.purge((select term from plank.leader), '0', 0, 10000) as gone`,
      );
      return row!['gone'] === '0';
    };
    await until('the log purges the changes that the client did not read', purge, 10_000);
    slow.resume();
    expect(await slow.closed(10_000)).toBe(4508);
    expect(slow.problems).toEqual([]);
    expect(slow.rows.size).toBeGreaterThan(0);
    expect([...slow.rows.keys()][0]).toBe(`big/${from}`);
    expect(watcher.closeCodes).toEqual([]);
    watcher.stop();
  });

  test('a client that resumes from before the retention is closed with 4410', async () => {
    const { epoch } = (await admin(databaseUrl, 'select epoch from plank.extent()'))[0]!;
    const client = await TestClient.connect({ url, since: `e${epoch}.1`, reconnects: false });
    expect(await client.closed()).toBe(4410);
    expect(client.closeReasons[0]).toMatch(/read the rows again/);
    expect(client.count).toBe(0);
  });
});
