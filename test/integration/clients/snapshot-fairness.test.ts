// Clients that ask for snapshots and do not read them, or wait for tables that are locked: others come to their rows at once, what
// is kept for the slow is bounded, and they end or hear why.

import v8 from 'node:v8';
import vm from 'node:vm';
import { expect, test } from 'vitest';
import { RawPeer } from '../../support/stage/raw-peer.ts';
import { type Peer, Stage } from '../../support/stage/stage.ts';
import { until } from '../../support/wait.ts';

const megabyte = 1024 ** 2;

// what kernels keep for a client that reads nothing is less than `large`
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

/** Asks `count` connections for `each` different results of a table, and lets none of them read more than a byte now and then. */
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
  ['one reads nothing of a large table for which it has asked in a hundred ways', () => readSlowly(1, 100, 'large')],
  ['forty read nothing of results that are shared and kept', () => readSlowly(40, 3, 'small')],
  ['four wait for a locked table', () => readSlowly(4, 1, 'locked'), 'locked'],
  ['forty wait for a locked table', () => readSlowly(40, 1, 'locked'), 'locked'],
  ['forty wait for a table with a locked partition', () => readSlowly(40, 1, 'parts'), 'part'],
];

test.each(cases)('while %s, another client has its rows at once', async (_what, ask, lock) => {
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
      await until('a while has passed', () => performance.now() - started > 150, 1_000);
    }
  } finally {
    await holder.query('rollback');
    holder.release();
  }
  expect(Math.max(...waits)).toBeLessThan(5_000);
});

test('who waited for a locked table has its rows when it is free, also beside another that is not', async () => {
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
    await until('the free one is read', () => peers.every((peer) => lives(peer) === 1), 5_000);
    await holders[0]!.query('rollback');
    await until('one is read', () => peers.every((peer) => lives(peer) === 2), 8_000);
    await holders[1]!.query('rollback');
    await until('both are read', () => peers.every((peer) => lives(peer) === 3), 8_000);
  } finally {
    for (const holder of holders) {
      await holder.query('rollback');
      holder.release();
    }
  }
});

test('what is kept for a client that reads nothing is bounded, whatever it asks for', async () => {
  const before = memory();
  const read = await stage.metric('plank_snapshots_total');
  await readSlowly(1, 100, 'small');
  await until('it is subscribed', async () => (await stage.metric('plank_subscriptions')) === 100, 5_000);
  await until('it was read', async () => (await stage.metric('plank_snapshots_total')) > read, 5_000);
  const asked = performance.now();
  await until('a while has passed', () => performance.now() - asked > 1_500, 2_000);
  expect((await stage.metric('plank_snapshots_total')) - read).toBeLessThan(8);
  expect((memory() - before) / megabyte).toBeLessThan(40);
});

test('what is kept for all who read nothing is bounded as well', async () => {
  const before = memory();
  await readSlowly(60, 2, 'small');
  await until('they have asked', async () => (await stage.metric('plank_subscriptions')) === 120, 10_000);
  let most = 0;
  const end = performance.now() + 2_000;
  await until(
    'a while has passed',
    () => {
      most = Math.max(most, memory() - before);
      return performance.now() > end;
    },
    8_000,
  );
  expect(most / megabyte).toBeLessThan(150);
});

test('who reads a large table slowly hears that it is too slow, and has all of it when it reads', async () => {
  const peer = await stage.peer();
  await stage.subscribe(peer, { table: 'large', snapshot: true });
  await peer.reader.expect('rows');
  // its transaction is given up while others wait for its place
  const resyncs = await stage.metric('plank_resyncs_total');
  peer.ws.pause();
  await readSlowly(10, 1, 'large');
  // whose page has waited longest is told first: at the latest when all the others have been told
  await until('it was told so', async () => (await stage.metric('plank_resyncs_total')) > resyncs + 10, 25_000);
  peer.ws.resume();
  await until('it has all', () => peer.reader.all.some(({ type }) => type === 'live'), 30_000);
  const types = peer.reader.all.map(({ type }) => type);
  const begins = types.lastIndexOf('resync') + 1;
  const rows = peer.reader.all.slice(begins).flatMap((frame) => (frame.type === 'rows' ? frame.rows : []));
  expect(types).toContain('resync');
  expect(rows).toHaveLength(400);
});
