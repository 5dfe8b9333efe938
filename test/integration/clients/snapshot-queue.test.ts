// Snapshots wait in a queue: which work is saved when a client leaves it, and what its leaving must not disturb.

import { expect, test } from 'vitest';
import { maxAtOnce } from '#gateway/relay/snapshot.ts';
import { type Peer, Stage } from '../../support/stage/stage.ts';
import { until } from '../../support/wait.ts';

// a `gate` is rendered as JSON once nobody holds the advisory lock of its name; until then the session counts as active in Postgres
const stage = Stage.of(`
  create table todo (id integer primary key, status text);
  insert into todo values (1, 'open');
  select plank.attach('public.todo');

  create type gate as enum ('none', 'near', 'far');
  create function gate_json(gate) returns json language plpgsql as $$
  begin
    while not pg_try_advisory_xact_lock_shared(hashtext($1::text)) loop
      perform pg_sleep(0.005);
    end loop;
    return to_json($1::text);
  end $$;
  create cast (gate as json) with function gate_json(gate);
  create table slow (id integer primary key, gate gate);
  insert into slow select n, case n when 40 then 'near' when 250 then 'far' else 'none' end::gate from generate_series(1, 300) n;
  select plank.attach('public.slow');
`);

const reading = async (what: string) => {
  const { rows } = await stage.sql(
    `select count(*)::integer as count from pg_stat_activity
     where datname = current_database() and application_name = 'plank gateway (rows)' and ${what}`,
  );
  return (rows[0] as { count: number }).count;
};

/** Subscribes with rows; each `status` is a channel of its own. */
async function snapshot(status: string, peer?: Peer): Promise<Peer> {
  const one = peer ?? (await stage.peer());
  await stage.subscribe(one, { table: 'todo', where: { status }, snapshot: true });
  return one;
}

const inGate = `query like '%slow%' and state = 'active'`;

/** Runs `work` while as many snapshots are read as are read at once. Resolves when they have been read. */
async function whileBusy(work: () => Promise<void>): Promise<void> {
  const holder = await stage.pool.connect();
  const busy: Peer[] = [];
  try {
    await holder.query(`select pg_advisory_lock(hashtext('near'))`);
    for (let i = 0; i < maxAtOnce; i++) {
      busy.push(await stage.peer());
      await stage.subscribe(busy[i]!, { table: 'slow', where: { id: { gt: i, lt: 50 } }, snapshot: true });
    }
    await until('every reader is busy', async () => (await reading(inGate)) === maxAtOnce, 5_000);
    await work();
  } finally {
    await holder.query('select pg_advisory_unlock_all()');
    holder.release();
  }
  for (const { reader } of busy)
    await until('the reader is live', () => reader.all.some(({ type }) => type === 'live'), 5_000);
}

const waiting = (count: number) =>
  until(`${count} snapshots wait`, async () => (await stage.metric('plank_snapshots_waiting')) === count, 5_000);

test('a client that leaves gives up its place in the queue, and those after it get their rows', async () => {
  const before = await stage.metric('plank_snapshots_total');
  const peers: Peer[] = [];
  await whileBusy(async () => {
    for (const status of ['gone', 'open']) peers.push(await snapshot(status));
    await waiting(2);
    peers[0]!.ws.terminate();
    await waiting(1);
  });
  expect(await peers[1]!.reader.rows()).toEqual([{ id: 1, status: 'open' }]);
  await peers[1]!.reader.expect('live');
  expect((await stage.metric('plank_snapshots_total')) - before).toBe(maxAtOnce + 1);
});

test('an unsubscription gives up its place in the queue', async () => {
  const before = await stage.metric('plank_snapshots_total');
  await whileBusy(async () => {
    const peer = await stage.peer();
    const ch = await stage.subscribe(peer, { table: 'todo', snapshot: true });
    await waiting(1);
    peer.send({ type: 'unsubscribe', id: 0, ch });
    await waiting(0);
  });
  expect((await stage.metric('plank_snapshots_total')) - before).toBe(maxAtOnce);
});

test('a snapshot that several clients wait for is read once, even if the first of them leaves', async () => {
  const before = await stage.metric('plank_snapshots_total');
  const peers: Peer[] = [];
  await whileBusy(async () => {
    for (let i = 0; i < 4; i++) peers.push(await snapshot('open'));
    await waiting(4);
    for (const i of [0, 2]) peers[i]!.ws.terminate();
    await until(
      'the clients have left',
      async () => (await stage.metric('plank_connections')) === maxAtOnce + 2,
      5_000,
    );
  });
  for (const i of [1, 3]) expect(await peers[i]!.reader.rows()).toEqual([{ id: 1, status: 'open' }]);
  expect((await stage.metric('plank_snapshots_total')) - before).toBe(maxAtOnce + 1);
});

test('a shared snapshot leaves the queue with its last client, and a later client gets a new one', async () => {
  const before = await stage.metric('plank_snapshots_total');
  let late: Peer | undefined;
  await whileBusy(async () => {
    const peers = [await snapshot('open'), await snapshot('open')];
    await waiting(2);
    for (const { ws } of peers) ws.terminate();
    await waiting(0);
    late = await snapshot('open');
    await waiting(1);
  });
  expect(await late!.reader.rows()).toEqual([{ id: 1, status: 'open' }]);
  expect((await stage.metric('plank_snapshots_total')) - before).toBe(maxAtOnce + 1);
});

test('a snapshot whose client leaves ends with the page that is being read', async () => {
  const holder = await stage.pool.connect();
  try {
    // one gate in the second page, one far after it
    await holder.query(`select pg_advisory_lock(hashtext('near')), pg_advisory_lock(hashtext('far'))`);
    const peer = await stage.peer();
    await stage.subscribe(peer, { table: 'slow', snapshot: true });
    await until('the second page is being read', async () => (await reading(inGate)) === 1, 5_000);
    peer.ws.terminate();
    await until('the client has left', async () => (await stage.metric('plank_connections')) === 0, 5_000);
    await holder.query(`select pg_advisory_unlock(hashtext('near'))`);
    await until('nothing is read any more', async () => (await reading(`state <> 'idle'`)) === 0, 5_000);
  } finally {
    await holder.query('select pg_advisory_unlock_all()');
    holder.release();
  }
});
