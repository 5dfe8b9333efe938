// Answers of Postgres are bounded: a value that is too large fails its query and its connection, and nothing else. A cursor fetches as
// many rows as their size allows.

import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import { connect, disconnect, type Pool } from '#shared/postgres/postgres.ts';
import { RowCursor } from '#shared/postgres/row-cursor.ts';
import { testPool } from '../../support/servers/pool.ts';
import { createDatabase } from '../../support/servers/servers.ts';

const megabyte = 1024 ** 2;
const stack = new AsyncDisposableStack();
let pool: Pool;
let url: string;

beforeAll(async () => {
  const database = await createDatabase();
  stack.defer(() => database.drop());
  ({ url } = database);
  pool = testPool(url, 2);
  stack.defer(() => pool.end());
  await pool.query(`create table big (id integer primary key, body text)`);
});

afterAll(() => stack.disposeAsync());

describe('a value that is too large', () => {
  const bytes = 130 * megabyte;
  const large = `select repeat('x', ${bytes}) as row`;
  test.each<[string, () => Promise<unknown>]>([
    ['a query', () => pool.query(`select repeat('x', ${300 * megabyte})`)],
    [
      'a row of many',
      () => pool.query(`select g, case g when 3 then repeat('x', ${bytes}) end from generate_series(1, 5) g`),
    ],
    ['bytes as hex', () => pool.query(`select decode(repeat('ab', ${bytes / 2}), 'hex')`)],
    ['a notice', () => pool.query(`do $$ begin raise notice '%', repeat('x', ${bytes}); end $$`)],
    ['an error', () => pool.query(`do $$ begin raise exception '%', repeat('x', ${bytes}); end $$`)],
    [
      'a cursor',
      async () => {
        const client = await pool.connect();
        let failure: unknown;
        try {
          await new RowCursor<{ row: string }>(client, { text: large, values: [] }, megabyte, () => 1).fetch(1);
        } catch (error) {
          failure = error;
        }
        client.release(true);
        throw failure;
      },
    ],
    [
      'binary rows',
      async () => {
        const { client } = await connect(url, { applicationName: 'tests', statementTimeoutMs: 0 });
        try {
          return await client.binaryRows('large', large);
        } finally {
          await disconnect(client);
        }
      },
    ],
  ])('a value that is too large fails %s, and the pool goes on', async (_, ask) => {
    await expect(ask()).rejects.toThrow(/Postgres sent \d+ bytes at once/);
    expect((await pool.query<{ n: number }>('select 7 as n')).rows).toEqual([{ n: 7 }]);
  });
});

test('an error thrown while an answer is parsed fails that query', async () => {
  const client = await pool.connect();
  client.connection.once('rowDescription', () => {
    throw new Error('thrown by a listener');
  });
  await expect(client.query('select 1')).rejects.toThrow('thrown by a listener');
  client.release(true);
  expect((await pool.query<{ n: number }>('select 7 as n')).rows).toEqual([{ n: 7 }]);
});

describe('a cursor', () => {
  const sql = `select g, repeat('x', case when g between 101 and 120 then ${megabyte} else 10 end) from generate_series(1, 500) g`;
  const rows = (client: ConstructorParameters<typeof RowCursor>[0], bound: number) =>
    new RowCursor<[number, string]>(
      client,
      { text: sql, values: [], rowMode: 'array' },
      bound,
      ([, text]) => text.length,
    );

  test('a cursor fetches at most its bound and one row, and all rows in order', async () => {
    const client = await pool.connect();
    const cursor = rows(client, 3 * megabyte);
    const found: number[] = [];
    let most = 0;
    for (let more = true; more; ) {
      const page = await cursor.fetch(200);
      found.push(...page.rows.map(([g]) => g));
      most = Math.max(
        most,
        page.rows.reduce((sum, [, text]) => sum + text.length, 0),
      );
      ({ more } = page);
    }
    await cursor.close();
    expect(found).toEqual(Array.from({ length: 500 }, (_, n) => n + 1));
    expect(most).toBeLessThan(4 * megabyte);
    expect((await client.query<{ n: number }>('select 7 as n')).rows).toEqual([{ n: 7 }]);
    client.release();
  });

  test('a cursor reports no more rows after the last fetch, and cannot be closed during one', async () => {
    const client = await pool.connect();
    const whole = rows(client, 100 * megabyte);
    expect(await whole.fetch(500)).toMatchObject({ more: true });
    expect(await whole.fetch(500)).toEqual({ rows: [], more: false });
    await whole.close();
    const cut = rows(client, megabyte);
    await cut.fetch(300);
    await expect(cut.close()).rejects.toThrow('during a fetch');
    client.release(true);
  });

  test('a cursor rejects with the error of Postgres', async () => {
    const client = await pool.connect();
    const query = { text: 'select 1 / (3 - g) from generate_series(1, 10) g', values: [] };
    const cursor = new RowCursor(client, query, megabyte, () => 1);
    await expect(cursor.fetch(5)).rejects.toThrow('division by zero');
    client.release(true);
  });
});
