// The cost of a capture does not depend on what its connection did before: plans are cached, and a plan that was made for one row must
// suit a statement of thousands.

import type { Client } from 'pg';
import { expect, test } from 'vitest';
import { createDatabase } from '../../support/servers/servers.ts';
import { session } from '../../support/truth/capture.ts';

const rows = 2_000;

/** The best of three runs, in ms. */
async function timed(client: Client, statement: string): Promise<number> {
  const times: number[] = [];
  for (let i = 0; i < 3; i++) {
    const started = performance.now();
    await client.query(statement);
    times.push(performance.now() - started);
  }
  return Math.min(...times);
}

test('large statements cost the same after many small ones as alone', async () => {
  const database = await createDatabase();
  const [fresh, used] = [await session(database.url), await session(database.url)];
  try {
    await fresh.query(`create table t (id int primary key, v text); select plank.attach('t')`);
    await fresh.query(`insert into t select g, 'x' from generate_series(1, ${rows}) g`);
    for (let i = 0; i < 12; i++) {
      await used.query(`insert into t values (1, 'y') on conflict (id) do update set v = excluded.v`);
      await used.query('update t set id = id + 100000 where id = 1');
      await used.query('update t set id = id - 100000 where id = 100001');
    }
    for (const statement of [
      `update t set v = v || 'x'`,
      'update t set id = -id',
      `insert into t select g, 'z' from generate_series(1, ${rows}) g on conflict (id) do update set v = excluded.v`,
    ]) {
      const alone = await timed(fresh, statement);
      expect([statement, (await timed(used, statement)) < 8 * alone + 20]).toEqual([statement, true]);
    }
  } finally {
    await fresh.end();
    await used.end();
    await database.drop();
  }
});
