// Clients that request snapshots and do not read them, or wait for locked tables: others get their rows at once, the memory held for
// slow clients is bounded, and they end with a reason.

import v8 from 'node:v8';
import vm from 'node:vm';
import { expect, test } from 'vitest';
import { RawPeer } from '../../support/stage/raw-peer.ts';
import { type Peer, Stage } from '../../support/stage/stage.ts';
import { until } from '../../support/wait.ts';

const megabyte = 1024 ** 2;

// `large` is larger than the kernel's buffers for a client that reads nothing
const stage = Stage.of(`
  create table todo (id integer primary key, status text);
  insert into todo values (1, 'open');
  create table large (id integer primary key, body text);
  insert into large select n, repeat('x', 100000) from generate_series(1, 400) n;
  create table small (id integer primary key, body text);
  insert into small select n, repeat('x', 100000) from generate_series(1, 39) n;
  create table locked (id integer primary key, status text);
  insert into locked values (1, 'there');
  create table parts (id integer primary key, status text) partition by range (id);
  create table part partition of parts for values from (0) to (10);
  insert into parts values (1, 'there');
  select plank.attach('todo'), plank.attach('large'), plank.attach('small'), plank.attach('locked'), plank.attach('parts');
`);

v8.setFlagsFromString('--expose-gc');
const collect = vm.runInNewContext('gc') as () => void;
const memory = () => {
  collect();
  const { heapUsed, external } = process.memoryUsage();
  return heapUsed + external;
};

async function raw(): Promise<RawPeer> {
  const peer = await RawPeer.connect(stage.embedded.url);
  stage.afterwards(() => peer.close());
  return peer;
}

/** Requests `each` different results of a table on each of `count` connections, which read one byte every 20 ms. */
async function readSlowly(count: number, each: number, table: string): Promise<void> {
  for (let i = 0; i < count; i++) {
    const peer = await raw();
    for (let j = 0; j < each; j++) peer.subscribe({ table, where: { id: { gt: -1 - i * each - j } }, snapshot: true });
    peer.trickle(20);
  }
}

const cases: [what: string, ask: () => Promise<void>, lock?: string][] = [
  ['four read a large table by the byte', () => readSlowly(4, 1, 'large')],
  ['forty read a large table by the byte', () => readSlowly(40, 1, 'large')],
  ['one reads nothing of a hundred results of a large table', () => readSlowly(1, 100, 'large')],
  ['forty read nothing of results that are shared and kept', () => readSlowly(40, 3, 'small')],
  ['four wait for a locked table', () => readSlowly(4, 1, 'locked'), 'locked'],
  ['forty wait for a locked table', () => readSlowly(40, 1, 'locked'), 'locked'],
  ['forty wait for a table with a locked partition', () => readSlowly(40, 1, 'parts'), 'part'],
];

test.each(cases)('another client has its rows at once while %s', async (_what, ask, lock) => {
  const holder = await stage.pool.connect();
  const waits: number[] = [];
  try {
    if (lock) await holder.query(`begin; lock table ${lock} in access exclusive mode`);
    await ask();
    for (let i = 0; i < 4; i++) {
      const peer = await stage.peer();
      const started = performance.now();
      await stage.subscribe(peer, { table: 'todo', where: { id: { lt: 100 + i } }, snapshot: true });
      await peer.reader.rows();
      waits.push(performance.now() - started);
      await until('150 ms have passed', () => performance.now() - started > 150, 1_000);
    }
  } finally {
    await holder.query('rollback');
    holder.release();
  }
  expect(Math.max(...waits)).toBeLessThan(5_000);
});

test('a client that waited for a locked table gets its rows once it is free, even if another table is not', async () => {
  const holders = [await stage.pool.connect(), await stage.pool.connect()];
  const peers: Peer[] = [];
  try {
    for (const [i, table] of ['locked', 'part'].entries())
      await holders[i]!.query(`begin; lock table ${table} in access exclusive mode`);
    for (let i = 0; i < 5; i++) {
      const peer = await stage.peer();
      peers.push(peer);
      peer.send({ type: 'subscribe', id: 1, table: 'parts', snapshot: true });
      peer.send({ type: 'subscribe', id: 2, table: 'locked', where: { id: { lt: 5 + i } }, snapshot: true });
      peer.send({ type: 'subscribe', id: 3, table: 'todo', where: { id: { lt: 5 + i } }, snapshot: true });
    }
    const lives = ({ reader }: Peer) => reader.all.filter(({ type }) => type === 'live').length;
    await until('the rows of the free table arrive', () => peers.every((peer) => lives(peer) === 1), 5_000);
    await holders[0]!.query('rollback');
    await until('the rows of the first table arrive', () => peers.every((peer) => lives(peer) === 2), 8_000);
    await holders[1]!.query('rollback');
    await until('the rows of both arrive', () => peers.every((peer) => lives(peer) === 3), 8_000);
  } finally {
    for (const holder of holders) {
      await holder.query('rollback');
      holder.release();
    }
  }
});

test('the memory held for a client that reads nothing is bounded, whatever it requests', async () => {
  const before = memory();
  const read = await stage.metric('plank_snapshots_total');
  await readSlowly(1, 100, 'small');
  await until('the client is subscribed', async () => (await stage.metric('plank_subscriptions')) === 100, 5_000);
  await until('a snapshot was read', async () => (await stage.metric('plank_snapshots_total')) > read, 5_000);
  const subscribedAt = performance.now();
  await until('1.5 s have passed', () => performance.now() - subscribedAt > 1_500, 2_000);
  expect((await stage.metric('plank_snapshots_total')) - read).toBeLessThan(8);
  expect((memory() - before) / megabyte).toBeLessThan(40);
});

test('the memory held for all clients that read nothing is bounded', async () => {
  const before = memory();
  await readSlowly(60, 2, 'small');
  await until('every client is subscribed', async () => (await stage.metric('plank_subscriptions')) === 120, 10_000);
  let most = 0;
  const end = performance.now() + 2_000;
  await until(
    '2 s have passed',
    () => {
      most = Math.max(most, memory() - before);
      return performance.now() > end;
    },
    8_000,
  );
  expect(most / megabyte).toBeLessThan(150);
});

test('a client that reads a large table slowly gets a resync, and all rows once it reads', async () => {
  const peer = await stage.peer();
  await stage.subscribe(peer, { table: 'large', snapshot: true });
  await peer.reader.expect('rows');
  // the transaction of its snapshot is given up because others wait for its place
  const resyncs = await stage.metric('plank_resyncs_total');
  peer.ws.pause();
  await readSlowly(10, 1, 'large');
  // the client whose page has waited longest gets its resync first, and this client at the latest after all the others
  await until(
    'every slow client gets a resync',
    async () => (await stage.metric('plank_resyncs_total')) > resyncs + 10,
    25_000,
  );
  peer.ws.resume();
  await until('the client is live', () => peer.reader.all.some(({ type }) => type === 'live'), 30_000);
  const types = peer.reader.all.map(({ type }) => type);
  const begins = types.lastIndexOf('resync') + 1;
  const rows = peer.reader.all.slice(begins).flatMap((frame) => (frame.type === 'rows' ? frame.rows : []));
  expect(types).toContain('resync');
  expect(rows).toHaveLength(400);
});
