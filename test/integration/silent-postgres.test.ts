// A connection to Postgres that says nothing: given up soon where it has died, and not where Postgres works.

import { afterAll, afterEach, beforeAll, expect, test } from 'vitest';
import { LogReader } from '../../shared/log-reader.ts';
import type { Pool, PoolClient } from '../../shared/postgres.ts';
import { answered } from '../../shared/silence.ts';
import { testPool } from '../support/pool.ts';
import { createDatabase, type TestDatabase } from '../support/servers.ts';
import { TcpProxy } from '../support/tcp-proxy.ts';
import { until } from '../support/wait.ts';

const longMs = 60_000;
const soonMs = 7_000;
let database: TestDatabase;
let proxy: TcpProxy;
let pool: Pool;
let direct: Pool;
const clients: PoolClient[] = [];

beforeAll(async () => {
  database = await createDatabase();
  proxy = await TcpProxy.start(database.url);
  pool = testPool(proxy.through(database.url));
  direct = testPool(database.url);
});
afterEach(() => {
  for (const client of clients.splice(0)) client.release(new Error('used'));
  proxy.pass();
});
afterAll(async () => {
  await pool.end();
  await direct.end();
  await proxy.stop();
  await database.drop();
});

const client = async (): Promise<PoolClient> => {
  const one = await pool.connect();
  clients.push(one);
  return one;
};

/** The connections there are have died, and nobody says so; new ones are as they should be. */
const lose = () => {
  proxy.blackhole();
  proxy.pass();
};

const ask = async (sql: string) => {
  const one = await client();
  // others of the pool die as well
  const idle = await pool.connect();
  idle.release();
  return { one, answer: () => answered(one.query(sql), one, pool, longMs) };
};

async function failsSoon(work: Promise<unknown>): Promise<void> {
  const began = performance.now();
  await expect(work).rejects.toThrow('silent');
  expect(performance.now() - began).toBeLessThan(soonMs);
}

const running = (sql: string) => async () =>
  (await direct.query(`select from pg_stat_activity where state = 'active' and query = $1`, [sql])).rowCount === 1;

test('where the question is lost', async () => {
  const { answer } = await ask('select 1');
  lose();
  await failsSoon(answer());
});

test('where the answer is lost, after Postgres has worked for it', async () => {
  const sql = 'select pg_sleep(1.5)';
  const { answer } = await ask(sql);
  const failing = failsSoon(answer());
  await until('it works', running(sql), 2_000);
  lose();
  await failing;
});

test('where the server process has gone and nobody says so, and where nothing can be asked at all', async () => {
  const { answer } = await ask('select pg_sleep(30)');
  const failing = answer();
  failing.catch(() => {});
  await until('it works', running('select pg_sleep(30)'), 2_000);
  proxy.blackhole();
  const began = performance.now();
  await expect(failing).rejects.toThrow('silent');
  expect(performance.now() - began).toBeLessThan(10_000);
  await direct.query(`select pg_terminate_backend(pid) from pg_stat_activity where query = 'select pg_sleep(30)'`);
});

test('but not where Postgres works, or waits for a lock', async () => {
  const { one, answer } = await ask('select pg_sleep(3.5)');
  await answer();
  const holder = await direct.connect();
  try {
    await holder.query('begin; lock table plank.leader in access exclusive mode');
    const waiting = answered(one.query('select epoch from plank.leader'), one, pool, longMs);
    const began = performance.now();
    await until('longer than silence may last', () => performance.now() - began > 3_500, 6_000);
    await holder.query('rollback');
    expect((await waiting).rowCount).toBe(1);
  } finally {
    await holder.query('rollback');
    holder.release();
  }
});

test('a read of the log fails soon, and the next one succeeds', async () => {
  const reader = new LogReader(pool);
  const { newest } = await reader.extent();
  await reader.page(newest, 10);
  lose();
  await failsSoon(reader.page(newest, 10));
  expect(await reader.page(newest, 10)).toEqual([]);
});
