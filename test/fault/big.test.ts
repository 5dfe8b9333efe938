// Large writes: a row of 1 MB full of emoji, and one statement over 100,000 rows. The writes succeed, every change arrives
// once and in order, live and on a resume from before, and the gateways' memory stays bounded.

import { afterAll, beforeAll, beforeEach, expect, test } from 'vitest';
import { WebSocket } from 'ws';
import { Cluster, type ClusterNode } from '#deploy/local/cluster.ts';
import { admin } from '../support/servers/admin.ts';
import { createDatabase, redisUrl } from '../support/servers/servers.ts';
import { TestClient } from '../support/stage/client.ts';
import { metric, tellOnFailure } from '../support/stage/nodes.ts';
import { until } from '../support/wait.ts';

const megabyte = 1024 ** 2;
const rows = 100_000;

const stack = new AsyncDisposableStack();
let cluster: Cluster;
let databaseUrl: string;

beforeAll(async () => {
  const database = await createDatabase();
  stack.defer(() => database.drop());
  databaseUrl = database.url;
  // before the gateways start: running ones would notice the table a moment later
  await admin(databaseUrl, 'create table notes (id integer primary key, body text)');
  await admin(databaseUrl, `select plank.attach('notes')`);
  cluster = await Cluster.start({
    gateways: 2,
    databaseUrl,
    redisUrl: await redisUrl(),
    env: { PLANK_LOG_NAME: database.name },
    gatewayEnv: { RING_BYTES: `${16 * megabyte}` },
    // less than the statement over 100,000 rows: a resume from before it needs the log
    listenerEnv: { STREAM_BYTES: `${4 * megabyte}` },
  });
  stack.defer(() => cluster.stop());
});

beforeEach(() => tellOnFailure(() => [...cluster.listeners, ...cluster.gateways]));

afterAll(() => stack.disposeAsync());

async function memory(nodes: readonly ClusterNode[]): Promise<number> {
  const sizes = await Promise.all(nodes.map((node) => metric(node, 'process_resident_memory_bytes')));
  return Math.max(...sizes) / megabyte;
}

/** The frames of a plain connection, parsed. */
async function framesOf(url: string, count: number): Promise<{ data: Record<string, unknown> | null; pos: string }[]> {
  const frames: { data: Record<string, unknown> | null; pos: string }[] = [];
  const ws = new WebSocket(url);
  stack.defer(() => ws.terminate());
  ws.on('message', (data: Buffer) => frames.push(JSON.parse(data.toString()) as (typeof frames)[number]));
  await new Promise((resolve, reject) => ws.once('open', resolve).once('error', reject));
  await until(`${count} frames`, () => frames.length >= count, 15_000);
  ws.terminate();
  return frames;
}

test('a row of 1 MB full of emoji arrives unchanged, live and on a resume', async () => {
  const url = cluster.webSocketUrl;
  const body = '😀é\u0001"\\'.repeat(120_000);
  expect(Buffer.byteLength(body)).toBeGreaterThan(megabyte);
  const first = await TestClient.connect({ url, tables: 'notes' });
  await admin(databaseUrl, `insert into notes values (1, 'before')`);
  await until('the first row arrives', () => first.count === 1, 5_000);
  const since = first.pos!;

  const live = framesOf(`${url}?tables=notes&since=${since}`, 3);
  await admin(databaseUrl, `insert into notes values (2, ${escape(body)})`);
  await admin(databaseUrl, `update notes set body = body || '!' where id = 2`);
  await admin(databaseUrl, `insert into notes values (3, 'after')`);
  for (const frames of [await live, await framesOf(`${url}?tables=notes&since=${since}`, 3)]) {
    expect(frames.map(({ data }) => data!['id'])).toEqual([2, 2, 3]);
    // toEqual would print the whole text on a failure
    expect(frames[0]!.data!['body'] === body).toBe(true);
    expect(frames[1]!.data!['body'] === `${body}!`).toBe(true);
  }
  await until('the first client has all', () => first.count === 4, 5_000);
  first.stop();
});

function escape(text: string): string {
  return `E'${text.replaceAll('\\', '\\\\').replaceAll("'", "''").replaceAll('\u0001', '\\u0001')}'`;
}

test('one statement over 100,000 rows arrives once and in order, live and on a resume', async () => {
  const url = cluster.webSocketUrl;
  const live = await TestClient.connect({ url, tables: 'items' });
  await admin(databaseUrl, `insert into items (name, value) values ('first', 1)`);
  await until('the first row arrives', () => live.count === 1, 5_000);
  const since = live.pos!;
  const nodes = [...cluster.gateways, ...cluster.listeners];
  const before = await memory(nodes);
  let peak = before;
  const watch = async (client: TestClient, count: number) => {
    peak = Math.max(peak, await memory(nodes));
    return client.count >= count;
  };

  let started = performance.now();
  await admin(databaseUrl, `insert into items (name, value) select 'row ' || n, 1 from generate_series(1, ${rows}) n`);
  console.log(`the statement took ${(performance.now() - started).toFixed(0)} ms`);
  const ms = await until('every row arrives', () => watch(live, rows + 1), 30_000);
  console.log(`all ${rows} rows were there ${ms.toFixed(0)} ms after the commit`);

  started = performance.now();
  const resumed = await TestClient.connect({ url, tables: 'items', since });
  await until('every row arrives again', () => watch(resumed, rows), 30_000);
  console.log(`a resume from before it took ${(performance.now() - started).toFixed(0)} ms`);

  await admin(databaseUrl, `insert into items (name, value) values ('last', 1)`);
  await until('the last row arrives', () => live.count >= rows + 2 && resumed.count >= rows + 1, 5_000);
  expect([live.count, resumed.count]).toEqual([rows + 2, rows + 1]);
  const ids = Array.from({ length: rows + 2 }, (_, n) => `items/${n + 1}`);
  // `problems` covers rising positions and rows that come twice; the keys and their order are left to check
  expect([...live.rows.keys()].every((key, n) => key === ids[n])).toBe(true);
  expect([...resumed.rows.keys()].every((key, n) => key === ids[n + 1])).toBe(true);
  for (const client of [live, resumed]) {
    expect(client.problems).toEqual([]);
    expect(client.closeCodes).toEqual([]);
    client.stop();
  }
  console.log(`memory: ${before.toFixed(0)} MB before, ${peak.toFixed(0)} MB at most`);
  expect(peak - before).toBeLessThan(150);
});
