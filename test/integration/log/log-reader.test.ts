// A reader of the log whose connection ends during a read: the read fails at once, so that its caller can read elsewhere, and nothing
// else fails.

import { afterAll, beforeAll, expect, test } from 'vitest';
import { LogReader } from '#shared/log/log-reader.ts';
import type { Pool } from '#shared/postgres/postgres.ts';
import { admin } from '../../support/servers/admin.ts';
import { testPool } from '../../support/servers/pool.ts';
import { createDatabase, type TestDatabase } from '../../support/servers/servers.ts';

let database: TestDatabase;
let pool: Pool;

beforeAll(async () => {
  database = await createDatabase();
  pool = testPool(database.url, 1, 'plank tests (log)');
  await admin(database.url, 'insert into items (name) select 1 from generate_series(1, 1000)');
  await admin(database.url, "select plank.drain((plank.lead('tests', '1 hour')).term, 5000, '1 hour', false)");
});

afterAll(async () => {
  await pool?.end();
  await database?.drop();
});

async function read(onChunk: () => Promise<unknown>): Promise<number> {
  let count = 0;
  for await (const rows of new LogReader(pool).stream(0)) {
    count += rows.length;
    await onChunk();
  }
  return count;
}

test('a read fails within a second when its connection ends, and the next one succeeds', async () => {
  const all = await read(async () => {});
  expect(all).toBeGreaterThan(500);
  let endedAt = 0;
  const end = async () => {
    await admin(
      database.url,
      `select pg_terminate_backend(pid, 5000) from pg_stat_activity where application_name = 'plank tests (log)'`,
    );
    endedAt = performance.now();
  };
  await expect(read(end)).rejects.toThrow();
  expect(performance.now() - endedAt).toBeLessThan(1_000);
  expect(await read(async () => {})).toBe(all);
});
