// plank.v1 as server-sent events: which requests are refused, where a stream resumes after a cut, and how it ends for good.

import { connect } from 'node:net';
import { expect, test } from 'vitest';
import { startNginx } from '#deploy/local/nginx.ts';
import { Stage } from '../../support/stage/stage.ts';
import { until } from '../../support/wait.ts';

const stage = Stage.of(
  `create table todo (id int primary key, status text, doc json);
   create table big (id int primary key, note text);
   select plank.attach('todo'), plank.attach('big')`,
  { MAX_QUEUE_BYTES: '16384', RING_BYTES: '65536' },
);
const { sql } = stage;

test.each([
  ['an unknown parameter', 'table=todo'],
  ['a parameter twice', 'columns=id&columns=status'],
  ['a filter that is not JSON', 'where={'],
  ['a deep filter', `where=${'['.repeat(4_000)}`],
  ['a snapshot that is neither true nor false', 'snapshot=maybe'],
  ['a position in words', 'since=yesterday'],
])('an event stream with %s is refused', async (_name, query) => {
  const response = await fetch(`${stage.embedded.url}/api/todo/changes?${query}`, {
    signal: AbortSignal.timeout(5_000),
  });
  expect(response.status).toBe(400);
  expect(response.headers.get('content-type')).toMatch('application/problem+json');
  await response.body?.cancel();
});

test.each(['HEAD', 'POST'])('a %s of an event stream is refused', async (method) => {
  const response = await fetch(`${stage.embedded.url}/api/todo/changes`, {
    method,
    signal: AbortSignal.timeout(5_000),
  });
  expect([response.status, response.headers.get('allow')]).toEqual([405, 'GET']);
});

test('an event stream resumes after its last event, with values that have line breaks', async () => {
  await sql('truncate todo');
  const first = await stage.stream({ table: 'todo', snapshot: true });
  await first.rows();
  await first.expect('live');
  await sql('insert into todo values (1, $1, $2)', ['a\nb\r\n\u2028', '{"a":\n\n[1,\r2]\r\n}']);
  const row = { id: 1, status: 'a\nb\r\n\u2028', doc: { a: [1, 2] } };
  const [change] = await first.changes(1);
  expect(change!.data).toEqual(row);
  first.close();
  await sql('insert into todo values (2)');
  const again = await stage.stream({ table: 'todo', from: change!.pos, snapshot: true });
  // it may have been live before the row came
  while (!again.all.some((frame) => frame.type === 'change')) await again.next();
  expect(again.all.filter((frame) => frame.type !== 'live')).toMatchObject([{ effect: 'add', id: 2 }]);
  const fresh = await stage.stream({ table: 'todo', where: { id: 1 }, snapshot: true });
  expect(await fresh.rows()).toEqual([row]);
  await fresh.expect('live');
});

test('a client that leaves is dropped, even in the middle of a snapshot', async () => {
  await sql(`truncate big; insert into big select g, repeat('x', 1000) from generate_series(1, 20000) g`);
  const { port } = new URL(stage.embedded.url);
  const socket = connect({ port: Number(port), host: '127.0.0.1' });
  socket.write('GET /api/big/changes?snapshot=true HTTP/1.1\r\nHost: x\r\n\r\n');
  await new Promise((resolve) => socket.once('data', resolve));
  socket.pause();
  expect(await stage.metric('plank_subscriptions')).toBe(1);
  socket.destroy();
  await until('the subscription is gone', async () => (await stage.metric('plank_subscriptions')) === 0, 5_000);
});

test('an event stream passes nginx without delay', async () => {
  const nginx = await startNginx({ upstreams: [new URL(stage.embedded.url).host] });
  try {
    const started = performance.now();
    const reader = await stage.stream({ table: 'todo', where: { id: 55 } }, nginx.url);
    await reader.expect('live');
    expect(performance.now() - started).toBeLessThan(3_000);
    const written = performance.now();
    await sql(`insert into todo values (55) on conflict (id) do update set status = 'x'`);
    await reader.changes(1);
    expect(performance.now() - written).toBeLessThan(3_000);
    reader.close();
  } finally {
    await nginx.stop();
  }
});

test('a stream that was cut after rows and before live begins again, whatever its first position was', async () => {
  await sql(`truncate todo; insert into todo values (1, 'seen')`);
  await stage.arrived();
  const first = await stage.stream({ table: 'todo' });
  const { pos } = await first.expect('live');
  // the frames' ids are checked as they come (test/support/stage/frames.ts)
  await stage.undrained(async () => {
    await sql(`insert into todo values (2, 'seen by the rows, and without a position yet')`);
    const cut = await stage.stream({ table: 'todo', snapshot: true });
    expect((await cut.rows()).map(({ id }) => id)).toContain(2);
    cut.close();
  });
  const behind = await stage.stream({ table: 'todo', since: pos, snapshot: true });
  // it may have been live before the row came
  while (!behind.all.some((frame) => frame.type === 'change')) await behind.next();
  expect(behind.all.filter((frame) => frame.type !== 'live')).toMatchObject([{ effect: 'add', id: 2 }]);
  const fresh = await stage.stream({ table: 'todo', since: pos, from: 'anew', snapshot: true });
  expect((await fresh.rows()).map(({ id }) => id)).toContain(2);
  await fresh.expect('live');
});

test('a stream whose picture is void resumes with nothing of it', async () => {
  await sql(`truncate todo; insert into todo values (1, 'a')`);
  const stream = await stage.stream({ table: 'todo', from: 'e1.7', snapshot: true });
  expect(await stream.expect('resync')).toMatchObject({ reason: 'epoch' });
  expect(stream.ids.at(-1)).toBe('anew');
  await stream.rows();
  const { pos } = await stream.expect('live');
  expect(stream.ids.at(-1)).toBe(pos);
});

test('a stream that ended for good gets 204 when it is requested again', async () => {
  await sql(`create table gone (id int primary key); select plank.attach('gone')`);
  await until('the table is served', async () => (await fetch(`${stage.embedded.url}/api/gone`)).status === 200, 5_000);
  const stream = await stage.stream({ table: 'gone' });
  await stream.expect('live');
  await sql('drop table gone');
  expect(await stream.expect('error')).toMatchObject({ code: 'UNKNOWN_TABLE', retry: false });
  expect(stream.ids.at(-1)).toBe('end');
  await until('the stream ends', () => stream.ended !== undefined, 5_000);
  const again = await fetch(`${stage.embedded.url}/api/todo/changes`, { headers: { 'Last-Event-ID': 'end' } });
  expect(again.status).toBe(204);
});
