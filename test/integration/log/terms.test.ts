// I3 and I6: a leader whose term is over gives no seq, whatever it was doing. Which positions are valid: up to the end of the log, within
// the retention, and across the end of an epoch.

import { afterAll, beforeAll, expect, test } from 'vitest';
import { Deposed, Sequencer } from '#listener/sequencer.ts';
import { LogReader, PositionGone } from '#shared/log/log-reader.ts';
import type { Pool } from '#shared/postgres/postgres.ts';
import { admin } from '../../support/servers/admin.ts';
import { testPool } from '../../support/servers/pool.ts';
import { createDatabase, type TestDatabase } from '../../support/servers/servers.ts';
import { drainedRows } from '../../support/truth/batches.ts';
import { session } from '../../support/truth/capture.ts';
import { hotTables } from '../../support/truth/writers.ts';
import { until } from '../../support/wait.ts';

/** as in a dump that was restored in another cluster */
const moved = 'update plank.epochs set system_id = system_id - 1 where epoch = (select max(epoch) from plank.epochs)';

let database: TestDatabase;
let pool: Pool;
let reader: LogReader;
let one: Sequencer;
let two: Sequencer;

beforeAll(async () => {
  database = await createDatabase();
  pool = testPool(database.url);
  reader = new LogReader(pool);
  await admin(database.url, hotTables);
  one = await Sequencer.connect(database.url, 60_000, 10_000);
  two = await Sequencer.connect(database.url, 60_000, 10_000);
});

afterAll(async () => {
  await one?.stop();
  await two?.stop();
  await pool?.end();
  await database?.drop();
});

/** Takes the lead as another listener does after the lease. */
async function takeOver(sequencer: Sequencer, name: string): Promise<{ term: number; epoch: number; headSeq: number }> {
  await admin(database.url, "update plank.leader set written_by = pg_current_xact_id(), expires_at = '-infinity'");
  return (await sequencer.lead(name))!;
}

async function change(times: number): Promise<void> {
  for (let i = 0; i < times; i++) await admin(database.url, 'update hot set ver = ver + 1 where k = 1');
}

/** The number of sessions that wait for a lock in this call. */
async function waiting(call: string): Promise<number> {
  const { rowCount } = await pool.query(
    `select from pg_stat_activity where datname = current_database() and wait_event_type = 'Lock' and position($1 in query) > 0`,
    [call],
  );
  return rowCount!;
}

test('one listener gets the lead while its lease lasts, and the holder gets it again', async () => {
  const lead = await takeOver(one, 'one');
  expect(await two.lead('two')).toBeNull();
  expect((await one.lead('one'))!.term).toBe(lead.term + 1);
  await one.resign(lead.term);
  expect(await two.lead('two')).toBeNull();
  await one.resign(lead.term + 1);
  expect((await two.lead('two'))!.term).toBe(lead.term + 2);
});

test('a lease that ends absurdly late counts as expired, as after a clock that was set back', async () => {
  await takeOver(one, 'one');
  await admin(
    database.url,
    "update plank.leader set written_by = pg_current_xact_id(), expires_at = now() + interval '1 day'",
  );
  expect(await two.lead('two')).not.toBeNull();
});

test('a deposed leader can neither drain nor renew nor purge', async () => {
  const old = await takeOver(one, 'one');
  await change(2);
  const lead = await takeOver(two, 'two');
  const before = await reader.extent();
  await expect(one.drain(old.term)).rejects.toThrow(Deposed);
  await expect(one.renew(old.term)).rejects.toThrow(Deposed);
  await expect(pool.query('select plank.purge($1, $2, 0, 1000)', [old.term, '0'])).rejects.toMatchObject({
    code: 'PLK01',
  });
  await one.resign(old.term);
  expect(await reader.extent()).toEqual(before);
  const drained = await two.drain(lead.term);
  expect(drained.kind === 'changes' && drainedRows(drained).length).toBeGreaterThanOrEqual(2);
});

test('a new lead waits for a running drain, whose leader is deposed before it could give a seq twice', async () => {
  const old = await takeOver(one, 'one');
  await one.drain(old.term);
  await change(1);
  // the drain of the old term meets the lead that takes over, in whichever order
  await admin(database.url, "update plank.leader set written_by = pg_current_xact_id(), expires_at = '-infinity'");
  const [drained, lead] = await Promise.allSettled([one.drain(old.term), two.lead('two')]);
  const term = lead.status === 'fulfilled' ? lead.value?.term : undefined;
  if (drained.status === 'rejected') expect(drained.reason).toBeInstanceOf(Deposed);
  if (term !== undefined) await two.drain(term);
  const { newest } = await reader.extent();
  expect((await reader.page(0, 1_000)).map((row) => Number(row[0]))).toEqual(
    Array.from({ length: newest }, (_, i) => i + 1),
  );
});

// a table that the drain needs is locked, so that the drain lasts
test.each([
  ['a large drain', 'plank.chunks', 0, false],
  ['the first drain of its term', 'plank.outbox', 5_000, true],
])('a leader is not overtaken during %s', async (_which, needed, limit, holds) => {
  const { term } = await takeOver(one, 'one');
  await change(1);
  const locking = await pool.connect();
  try {
    await locking.query(`begin; lock table ${needed} in access exclusive mode`);
    await admin(database.url, "update plank.leader set written_by = pg_current_xact_id(), expires_at = '-infinity'");
    const draining = pool.query("select last_seq from plank.drain($1, $2, '1 minute', $3)", [term, limit, holds]);
    await until('the drain waits', async () => (await waiting('plank.drain(')) === 1, 2_000);
    expect(await two.lead('two')).toBeNull();
    await locking.query('rollback');
    expect((await draining).rows).toEqual([{ last_seq: String((await reader.extent()).newest) }]);
  } finally {
    locking.release(true);
  }
});

test('a drain gives no seq if another took the lead since it looked for changes', async () => {
  const old = await takeOver(one, 'one');
  await one.drain(old.term);
  await change(1);
  await admin(database.url, "update plank.leader set written_by = pg_current_xact_id(), expires_at = '-infinity'");
  const taking = await pool.connect();
  let newest: number;
  try {
    await taking.query("begin; select plank.lead('two', '1 minute')");
    const overtaken = expect(one.drain(old.term)).rejects.toThrow(Deposed);
    await until(
      'the drain has found the change and is about to write',
      async () => (await waiting('plank.drain(')) === 1,
      2_000,
    );
    const { rows } = await taking.query<{ last_seq: string }>(
      "select last_seq from plank.drain((select term from plank.leader), 5000, '1 minute', false)",
    );
    newest = Number(rows[0]!.last_seq);
    await taking.query('commit');
    await overtaken;
  } finally {
    taking.release(true);
  }
  // a session reports its error before it releases the row
  await until('the row is free', async () => (await two.lead('two'))?.headSeq === newest, 2_000);
  expect(await reader.page(newest - 1, 10)).toHaveLength(1);
});

test('the server cancels a drain at its deadline, even if an earlier one had longer', async () => {
  const { term } = await takeOver(one, 'one');
  await one.drain(term, 20_000);
  await change(1);
  const other = await pool.connect();
  try {
    await other.query('begin; select from plank.leader for update');
    await expect(one.drain(term, 200)).rejects.toMatchObject({ code: '57014' });
  } finally {
    await other.query('rollback');
    other.release();
  }
  expect((await one.drain(term, 20_000)).kind).toBe('changes');
});

test('a drain has flushed its changes before it returns them, even if commits are not flushed', async () => {
  await admin(database.url, `alter database ${database.name} set synchronous_commit = off`);
  const lazy = await Sequencer.connect(database.url, 60_000, 10_000);
  try {
    const { term } = await takeOver(lazy, 'lazy');
    await lazy.drain(term);
    for (let i = 0; i < 20; i++) {
      await change(1);
      const [written] = await admin(database.url, 'select pg_current_wal_insert_lsn() as lsn');
      expect((await lazy.drain(term)).kind).toBe('changes');
      const flushed = await pool.query('select pg_current_wal_flush_lsn() >= $1 as enough', [written!.lsn]);
      expect(flushed.rows).toEqual([{ enough: true }]);
    }
  } finally {
    await lazy.stop();
    await admin(database.url, `alter database ${database.name} reset synchronous_commit`);
  }
});

test('a drain works if backslashes in strings are escapes', async () => {
  await admin(database.url, `alter database ${database.name} set standard_conforming_strings = off`);
  const old = await Sequencer.connect(database.url, 60_000, 10_000);
  try {
    await change(1);
    expect((await old.drain((await takeOver(old, 'old')).term)).kind).toBe('changes');
  } finally {
    await old.stop();
    await admin(database.url, `alter database ${database.name} reset standard_conforming_strings`);
  }
});

test('a page reads up to the end of the log, and a position after it is gone', async () => {
  const lead = await takeOver(one, 'one');
  await change(3);
  await one.drain(lead.term);
  const { newest, oldest } = await reader.extent();
  expect(oldest).toBe(1);
  expect(await reader.page(newest, 10)).toEqual([]);
  expect(await reader.page(newest - 2, 10)).toHaveLength(2);
  await expect(reader.page(newest + 1, 10)).rejects.toThrow(PositionGone);
  await expect(reader.stream(newest + 1).next()).rejects.toThrow(PositionGone);
});

test('a position before the retention is gone, and the first one within it is readable', async () => {
  const lead = await takeOver(one, 'one');
  for (let i = 0; i < 4; i++) {
    await change(1);
    await one.drain(lead.term);
  }
  const { newest } = await reader.extent();
  await admin(
    database.url,
    `update plank.log set drained_at = now() - interval '1 day' where last_seq <= ${newest - 2}`,
  );
  while (
    Number((await admin(database.url, `select plank.purge(${lead.term}, '1 hour', 1000000000, 100) as n`))[0]!.n) > 0
  );
  expect(await reader.extent()).toMatchObject({ oldest: newest - 1, newest });
  expect(await reader.page(newest - 2, 10)).toHaveLength(2);
  await expect(reader.page(newest - 3, 10)).rejects.toThrow(PositionGone);
  await expect(reader.page(0, 10)).rejects.toThrow(PositionGone);
});

test('a promotion begins an epoch, which keeps the log up to the fork', async () => {
  const before = await takeOver(one, 'one');
  await change(2);
  await one.drain(before.term);
  const head = (await reader.extent()).newest;
  const kept = await reader.page(head - 2, 10);
  await change(1);
  await admin(database.url, "update plank.epochs set timeline = 'FFFFFFFF'");
  const lead = await takeOver(two, 'two');
  expect(lead.epoch).toBeGreaterThan(before.epoch);
  expect(lead.headSeq).toBe(head);
  expect((await reader.epochs()).at(-1)).toEqual({ epoch: lead.epoch, forkedAt: head });
  expect(await reader.page(head - 2, 10)).toEqual(kept);
  const drained = await two.drain(lead.term);
  expect(drained.kind === 'changes' && drainedRows(drained).map((row) => Number(row[0]))).toEqual([head + 1]);
  expect((await takeOver(one, 'one')).epoch).toBe(lead.epoch);
});

test('a new epoch voids the log while a transaction is open, and delays writers only for a moment', async () => {
  const before = await takeOver(one, 'one');
  await change(2);
  await one.drain(before.term);
  await change(2);
  const long = await session(database.url);
  try {
    await long.query('begin; update hot set ver = ver + 1 where k = 2');
    await admin(database.url, moved);
    await admin(database.url, "update plank.leader set written_by = pg_current_xact_id(), expires_at = '-infinity'");
    const taken = two.lead('two');
    await until('the new leader waits for the writer', async () => (await waiting('plank.lead(')) === 1, 2_000);
    const writing = change(1);
    const lead = (await taken)!;
    await writing;
    expect(lead.epoch).toBeGreaterThan(before.epoch);
    // changes before the epoch are void, an open transaction's are not; a change at the same time may be either
    await two.drain(lead.term);
    const { newest } = await reader.extent();
    expect(newest).toBeLessThanOrEqual(lead.headSeq + 1);
    await long.query('commit');
    const late = await two.drain(lead.term);
    expect(late.kind === 'changes' && drainedRows(late).map((row) => Number(row[0]))).toEqual([newest + 1]);
  } finally {
    await long.end();
  }
});

test('a move to another cluster begins an epoch, which voids captured changes', async () => {
  const before = await takeOver(one, 'one');
  await change(2);
  await one.drain(before.term);
  await change(2);
  const head = (await reader.extent()).newest;
  await admin(database.url, moved);
  const lead = await takeOver(two, 'two');
  expect(lead.epoch).toBeGreaterThan(before.epoch);
  expect((await reader.epochs()).at(-1)).toEqual({ epoch: lead.epoch, forkedAt: 0 });
  const left = await admin(
    database.url,
    'select (select count(*) from plank.outbox) as o, (select count(*) from plank.log) as l, log_bytes as b from plank.leader',
  );
  expect(left).toEqual([{ o: '0', l: '0', b: '0' }]);
  expect(await two.drain(lead.term)).toEqual({ kind: 'nothing' });
  await change(1);
  const drained = await two.drain(lead.term);
  expect(drained.kind === 'changes' && drainedRows(drained).map((row) => Number(row[0]))).toEqual([head + 1]);
  expect(await reader.page(head, 10)).toHaveLength(1);
});
