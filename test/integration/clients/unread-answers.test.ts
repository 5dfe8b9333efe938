// Clients that request much over REST and read nothing of it: the memory held for them is bounded, and others are answered.

import { once } from 'node:events';
import { connect, type Socket } from 'node:net';
import v8 from 'node:v8';
import vm from 'node:vm';
import { expect, test } from 'vitest';
import { Stage } from '../../support/stage/stage.ts';
import { until } from '../../support/wait.ts';

// a page is larger than the kernel's buffers for a client that reads nothing
const stage = Stage.of(`
  create table todo (id integer primary key, status text);
  create table small (id integer primary key, body text);
  insert into small select n, repeat('x', 100000) from generate_series(1, 50) n;
  create table wide (id integer primary key, body text);
  insert into wide values (1, repeat('x', 5000000));
  insert into todo values (1, 'open');
  select plank.attach('todo'), plank.attach('small'), plank.attach('wide');
`);

v8.setFlagsFromString('--expose-gc');
const collect = vm.runInNewContext('gc') as () => void;
const memory = () => {
  collect();
  const { heapUsed, external } = process.memoryUsage();
  return (heapUsed + external) / 1024 ** 2;
};

async function unread(path: string, requests = 3): Promise<Socket> {
  const socket = connect(Number(new URL(stage.embedded.url).port), '127.0.0.1');
  socket.on('error', () => {});
  stage.afterwards(() => socket.destroy());
  await once(socket, 'connect');
  socket.pause();
  // several requests at once on one connection
  socket.write(`GET ${path} HTTP/1.1\r\nHost: x\r\n\r\n`.repeat(requests));
  return socket;
}

test.each([
  ['pages', '/api/small'],
  ['large rows', '/api/wide/1'],
])('the memory for unread %s is bounded, and other clients are answered', async (_what, path) => {
  // without a bound, it would be 480 MB
  const before = memory();
  const sockets: Socket[] = [];
  for (let i = 0; i < 40; i++) sockets.push(await unread(path));
  let most = 0;
  let slowest = 0;
  const end = performance.now() + 1_200;
  await until(
    '1.2 s have passed',
    async () => {
      const began = performance.now();
      const { status } = await fetch(`${stage.embedded.url}/api/todo/1`);
      expect(status).toBe(200);
      slowest = Math.max(slowest, performance.now() - began);
      most = Math.max(most, memory() - before);
      return performance.now() > end;
    },
    20_000,
  );
  expect(most).toBeLessThan(300);
  expect(slowest).toBeLessThan(5_000);
  // a client that reads in time gets the whole answer
  let length = 0;
  await until(
    'the whole answer arrives',
    async () => {
      const answer = await fetch(`${stage.embedded.url}${path}`);
      length = (await answer.text()).length;
      if (answer.status !== 200) expect([answer.status, answer.headers.get('retry-after')]).toEqual([503, '1']);
      return answer.status === 200;
    },
    10_000,
  );
  expect(length).toBeGreaterThan(4_000_000);
});

test('answers to clients that have left take no room', async () => {
  const waits = async () => {
    const { rowCount } = await stage.sql(`select from pg_locks where not granted and relation = 'wide'::regclass`);
    return rowCount ?? 0;
  };
  const other = await stage.pool.connect();
  await other.query('begin; lock table wide');
  // twice as many as there is room for
  const sockets: Socket[] = [];
  for (let i = 0; i < 14; i++) sockets.push(await unread('/api/wide/1', 1));
  await until('the requests wait', async () => (await waits()) > 4, 2_000);
  for (const socket of sockets) socket.destroy();
  await other.query('commit');
  other.release();
  await until('no request waits', async () => (await waits()) === 0, 5_000);
  const { status } = await fetch(`${stage.embedded.url}/api/wide/1`);
  expect(status).toBe(200);
});
