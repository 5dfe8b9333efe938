// A drain of many changes is described by chunks, so that a read from its middle does not sort all of it again. The chunks must give
// the difference of the two snapshots: the same changes in the same order, from every position.

import { Client } from 'pg';
import { afterAll, beforeAll, expect, test } from 'vitest';
import { admin } from '../../support/servers/admin.ts';
import { createDatabase, type TestDatabase } from '../../support/servers/servers.ts';

const columns = 'id, xid, relation, action, key, new, old';

let database: TestDatabase;
let writers: Client[];

beforeAll(async () => {
  database = await createDatabase();
  writers = await Promise.all(
    Array.from({ length: 3 }, async () => {
      const client = new Client({ connectionString: database.url });
      await client.connect();
      return client;
    }),
  );
  await admin(
    database.url,
    `create table t (id serial primary key, v text);
     select plank.attach('t')`,
  );
  await admin(database.url, "select plank.drain((plank.lead('tests', '1 hour')).term, 100, '1 hour', false)");
});

afterAll(async () => {
  await Promise.all((writers ?? []).map((writer) => writer.end()));
  await database?.drop();
});

/** Interleaved transactions: small and large ones, with rows of up to a third of a megabyte, savepoints, and a rollback. */
async function write(): Promise<void> {
  const [one, two, three] = writers as [Client, Client, Client];
  const insert = (rows: number, bytes: number) =>
    `insert into t (v) select repeat('x', ${bytes}) from generate_series(1, ${rows})`;
  for (const writer of writers) await writer.query('begin');
  await one.query(insert(3_000, 400));
  await two.query(`savepoint a; ${insert(5, 300_000)}; rollback to a; ${insert(5, 300_000)}`);
  await three.query(insert(10, 10));
  await one.query(insert(7, 300_000));
  await three.query('rollback');
  await three.query(insert(1, 1));
  await two.query(insert(1, 1));
  await two.query('commit');
  await one.query('update t set v = v || 1 where id % 7 = 0');
  await one.query('commit');
  for (let i = 0; i < 50; i++) await writers[i % 3]!.query(insert(1, 50_000));
}

test('chunks give the same as the difference of the snapshots, from every position', async () => {
  await write();
  const [{ seq: lastSeq }] = (await admin(
    database.url,
    "select last_seq as seq from plank.leader l cross join lateral plank.drain(l.term, 100, '1 hour', false) d",
  )) as [{ seq: string }];
  const [log] = await admin(database.url, `select * from plank.log where last_seq = ${lastSeq}`);
  expect(log).toMatchObject({ chunked: true });
  const expected = await admin(
    database.url,
    `select ${columns}, id = last_id as last from (
       select b.*, max(b.id) over (partition by b.xid) as last_id
       from plank.log l cross join lateral plank.between(l.before_snap, l.upto_snap) b where l.last_seq = ${lastSeq}) b order by last_id, id`,
  );
  const firstSeq = Number(log!['first_seq']);
  expect(expected).toHaveLength(Number(lastSeq) - firstSeq + 1);
  const chunks = await admin(database.url, 'select first_seq, last_seq from plank.chunks order by first_seq');
  expect(chunks.length).toBeGreaterThan(5);
  // the middle of chunks, their ends, and both sides of those
  const ends = chunks.flatMap((chunk) => [Number(chunk['first_seq']), Number(chunk['last_seq'])]);
  const positions = new Set([firstSeq - 1, ...ends.flatMap((seq) => [seq - 1, seq]), firstSeq + 1_234]);
  for (const after of positions) {
    const rows = await admin(
      database.url,
      `select seq, o.id, r.xid, r.relation, r.action, r.key, r.new, r.old, r.last
       from plank.read_log(${after}) r join plank.outbox o on o.xid = r.xid and o.key is not distinct from r.key and o.new is not distinct from r.new and o.action = r.action
       order by seq limit 300`,
    );
    const read = rows.map(({ seq, ...row }) => ({ seq: Number(seq), row }));
    const from = after - firstSeq + 1;
    expect(read).toEqual(expected.slice(from, from + 300).map((row, i) => ({ seq: after + 1 + i, row })));
  }
});

test('a read from a chunk does not sort the changes before and after', async () => {
  const [{ last_seq: middle }] = (await admin(
    database.url,
    'select last_seq from plank.chunks order by first_seq offset 3 limit 1',
  )) as [{ last_seq: string }];
  const plan = await admin(
    database.url,
    `explain (analyze, buffers off, costs off, timing off, summary off, format json) select * from plank.read_log(${middle}) limit 10`,
  );
  const sorted = [...JSON.stringify(plan).matchAll(/"Node Type":"Sort"[^{}]*?"Actual Rows":([\d.]+)/g)].map((found) =>
    Number(found[1]),
  );
  expect(sorted.length).toBeGreaterThan(0);
  const [all] = await admin(database.url, 'select count(*) as n from plank.outbox');
  for (const rows of sorted) expect(rows).toBeLessThan(Number(all!['n']) / 2);
});

test('chunks are purged with the log that they describe', async () => {
  await admin(database.url, "update plank.log set drained_at = now() - interval '1 day'");
  const purge = "select plank.purge(term, '1 hour', 1000000000, 10000) as gone from plank.leader";
  while (Number((await admin(database.url, purge))[0]!['gone']) > 0);
  expect(await admin(database.url, 'select count(*) as n from plank.chunks')).toEqual([{ n: '0' }]);
});
