// The bounds of event streams: they count as connections, and a stream that is never read is closed. Pages of rows are bounded
// although the size of a row is not known before it is read.

import { connect, type Socket } from 'node:net';
import { afterAll, beforeAll, expect, test } from 'vitest';
import type { Pool } from '#shared/postgres/postgres.ts';
import { testPool } from '../../support/servers/pool.ts';
import { createDatabase } from '../../support/servers/servers.ts';
import { type Embedded, startEmbedded } from '../../support/stage/embedded.ts';
import { overEvents, overWebSocket } from '../../support/stage/frames.ts';
import { until } from '../../support/wait.ts';

const stack = new AsyncDisposableStack();
let pool: Pool;
let embedded: Embedded;

beforeAll(async () => {
  const database = await createDatabase();
  stack.defer(() => database.drop());
  pool = testPool(database.url, 2);
  stack.defer(() => pool.end());
  await pool.query(`create table big (id int primary key, note text); select plank.attach('big')`);
  embedded = await startEmbedded(database.url, {
    MAX_CONNECTIONS: '2',
    MAX_QUEUE_BYTES: '16384',
    STALL_TIMEOUT_MS: '500',
  });
  stack.defer(() => embedded.stop());
});
afterAll(() => stack.disposeAsync());

const connections = async () =>
  ((await (await fetch(`${embedded.url}/health`)).json()) as { connections: number }).connections;

test('event streams count with WebSockets against MAX_CONNECTIONS', async () => {
  const socket = await overWebSocket(embedded.url, { table: 'big' });
  const stream = await overEvents(embedded.url, { table: 'big' });
  await expect(overEvents(embedded.url, { table: 'big' })).rejects.toThrow('TOO_MANY');
  await expect(overWebSocket(embedded.url, { table: 'big' })).rejects.toThrow('503');
  socket.close();
  stream.close();
  await until('both have gone', async () => (await connections()) === 0, 5_000);
});

test('an event stream whose client never reads is closed', async () => {
  const socket: Socket = connect(Number(new URL(embedded.url).port), '127.0.0.1');
  socket.on('error', () => {});
  socket.pause();
  socket.write('GET /api/big/changes HTTP/1.1\r\nhost: x\r\n\r\n');
  await until('the stream is open', async () => (await connections()) === 1, 5_000);
  // far more than kernels hold
  await pool.query(`insert into big select i, repeat('x', 100000) from generate_series(1, 300) i`);
  await until('the stream is closed', async () => (await connections()) === 0, 20_000);
  socket.destroy();
});

test('an event stream gets large rows in pages of the usual size', async () => {
  await pool.query('truncate big');
  await pool.query(`insert into big select i, repeat('x', 200000) from generate_series(1, 100) i`);
  const reader = await overEvents(embedded.url, { table: 'big', snapshot: true });
  const pages: number[] = [];
  for (let more = true; more; ) {
    const page = await reader.expect('rows');
    pages.push(page.rows.length);
    more = page.more;
  }
  expect(pages.reduce((sum, count) => sum + count, 0)).toBe(100);
  // the first pages show how large rows are
  expect(Math.max(...pages.slice(1))).toBeLessThanOrEqual(2);
  await reader.expect('live');
  reader.close();
});
