// On a Postgres with LLVM, as distributions build it, no read of the log is compiled: compilation would take a hundred times as long as
// the read. The Postgres that Plank brings along has no JIT, so this test needs another.

import { afterAll, beforeAll, expect, test } from 'vitest';
import { Sequencer } from '#listener/sequencer.ts';
import { LogReader } from '#shared/log/log-reader.ts';
import { migrate } from '#shared/postgres/migrate.ts';
import type { Pool } from '#shared/postgres/postgres.ts';
import { admin } from '../../support/servers/admin.ts';
import { DistributionPostgres } from '../../support/servers/distribution-postgres.ts';
import { testPool } from '../../support/servers/pool.ts';

const changes = 20_000;
const stack = new AsyncDisposableStack();
let pool: Pool;
let newest: number;

beforeAll(async () => {
  const postgres = await DistributionPostgres.start();
  stack.defer(() => postgres.stop());
  const url = postgres.url();
  // without autovacuum, the tables have no statistics
  await admin(url, 'alter system set autovacuum = off');
  await admin(url, 'select pg_reload_conf()');
  await migrate(url);
  await admin(url, "create table t (id integer primary key, v text); select plank.attach('t')");
  const sequencer = await Sequencer.connect(url, 60_000, 30_000);
  stack.defer(() => sequencer.stop());
  const { term } = (await sequencer.lead('test'))!;
  for (let i = 0; i < 20; i++) {
    await admin(
      url,
      `insert into t select g, repeat('x', 100) from generate_series(${i * 1_000}, ${i * 1_000 + 999}) g`,
    );
    await sequencer.drain(term);
  }
  pool = testPool(url);
  stack.defer(() => pool.end());
  ({ newest } = await new LogReader(pool).extent());
});

afterAll(() => stack.disposeAsync());

test('this Postgres has JIT, and would compile a read of the log', async () => {
  const { rows } = await pool.query('select pg_jit_available() as is_there');
  expect(rows).toEqual([{ is_there: false }]);
  const client = await pool.connect();
  try {
    await client.query('set jit = on');
    expect((await client.query('select pg_jit_available() as is_there')).rows).toEqual([{ is_there: true }]);
    const { rows: plan } = await client.query(
      `explain (analyze, format json) select * from plank.read_log(${newest - 10})`,
    );
    expect(JSON.stringify(plan)).toContain('"JIT"');
  } finally {
    client.release(true);
  }
});

test.each([
  ['the end', () => newest - 1],
  ['the last thousand', () => newest - 1_000],
  ['the middle', () => newest - changes / 2],
  ['the beginning', () => newest - changes],
])('a page of the log from %s is read within 50 ms, before any ANALYZE', async (_where, after) => {
  const reader = new LogReader(pool);
  const times: number[] = [];
  for (let i = 0; i < 5; i++) {
    const started = performance.now();
    await reader.page(after(), 100);
    times.push(performance.now() - started);
  }
  // the machine may have other work at times
  expect(Math.min(...times)).toBeLessThan(50);
});
