// The log of any failure names the failure, and has no value of a row.

import { afterAll, beforeAll, expect, test } from 'vitest';
import { z } from 'zod';
import type { Pool } from '#shared/postgres/postgres.ts';
import { createLog } from '#shared/process/logger.ts';
import { testPool } from '../../support/servers/pool.ts';
import { createDatabase, type TestDatabase } from '../../support/servers/servers.ts';

const secret = 'S3CRET47114711';
let database: TestDatabase;
let pool: Pool;

beforeAll(async () => {
  database = await createDatabase();
  pool = testPool(database.url);
  await pool.query(`
    create table people (id integer primary key, email text unique not null, age integer check (age < 10), code varchar(3), parent integer references people);
    insert into people values (1, '${secret}', 1);
    create domain short as text check (length(value) < 3);
    create function raise(text, text) returns void language plpgsql as $$ begin
      raise exception using message = $2, detail = $2, hint = $2, errcode = $1;
    end $$;
    create function nested(text) returns void language plpgsql as $$ begin
      execute format('select %L::integer', $1);
    end $$`);
});
afterAll(async () => {
  await pool.end();
  await database.drop();
});

const postgres: [what: string, code: string, sql: string][] = [
  ['a unique key', '23505', `insert into people values (2, '${secret}')`],
  ['a not-null column', '23502', `insert into people (id, code) values (47114711, 'S3C')`],
  ['a check', '23514', `insert into people values (3, '${secret}x', 47114711)`],
  ['a foreign key', '23503', `insert into people values (3, '${secret}x', 9, null, 47114711)`],
  ['a text that is no number', '22P02', `select '${secret}'::integer`],
  ['a text that is no date', '22007', `select '${secret}'::date`],
  ['a text that is no json', '22P02', `select '{"${secret}'::json`],
  ['a text that is too long', '22001', `insert into people values (3, 'x', 1, '${secret}')`],
  ['a number out of range', '22003', `select '9947114711999'::integer`],
  ['a domain', '23514', `select '${secret}'::short`],
  ['an exclusion of a function', 'P0001', `select raise('P0001', '${secret}')`],
  ['what a function raises as a lack of rights', '42501', `select raise('42501', '${secret}')`],
  ['what a function raises as a lost connection', '08006', `select raise('08006', '${secret}')`],
  ['what a function raises as a deadlock', '40P01', `select raise('40P01', '${secret}')`],
  ['an error within a function', '22P02', `select nested('${secret}')`],
  ['a division', '22012', `select length('${secret}') / 0`],
];

const others: [what: string, fail: () => unknown][] = [
  ['a text that is no JSON', () => JSON.parse(`{"email":${secret}`)],
  ['a value that a schema refuses', () => z.literal('x').parse(secret)],
  ['an object whose strange key a schema refuses', () => z.strictObject({}).parse({ [secret]: 1 })],
  [
    'a command of Redis',
    () => {
      throw Object.assign(new Error(`ERR wrong, with args beginning with: '${secret}'`), {
        command: { args: [secret] },
      });
    },
  ],
  [
    'fields of an error',
    () => {
      throw Object.assign(new Error('failed'), {
        row: { email: secret },
        detail: secret,
        client: { password: secret },
      });
    },
  ],
];

function logged(error: unknown): string {
  const lines: string[] = [];
  const log = createLog('debug', 'test', 'test', { write: (line) => lines.push(line) });
  log.error({ err: error }, 'as it is');
  log.error(error as Error, 'alone');
  log.error({ err: new Error('outer', { cause: new Error('between', { cause: error }) }) }, 'as a cause');
  log.error({ err: new AggregateError([error], 'many') }, 'as one of many');
  log.child({ component: 'x' }).warn({ err: error }, 'of a child');
  expect(lines).toHaveLength(5);
  return lines.join('');
}

const failureOf = async (fail: () => unknown): Promise<unknown> => {
  try {
    await fail();
  } catch (error) {
    return error;
  }
  throw new Error('it did not fail');
};

test.each(postgres)("the log of a failure names it without a row's values: %s, %s", async (_what, code, sql) => {
  const text = logged(await failureOf(() => pool.query(sql)));
  expect(text).not.toMatch(/S3C|47114711/);
  expect(text.split(`"code":"${code}"`)).toHaveLength(6);
  expect(text).toContain('"routine"');
});

test.each(others)('the log of a failure has no value: %s', async (_what, fail) => {
  expect(logged(await failureOf(fail))).not.toContain(secret);
});

test('the log of a failure has what operators need: names, and messages about names', async () => {
  const missing = await failureOf(() => pool.query('select nothing from people'));
  expect(logged(missing)).toContain('column \\"nothing\\" does not exist');
  const twice = await failureOf(() => pool.query(`insert into people values (2, '${secret}')`));
  expect(logged(twice)).toContain('"constraint":"people_email_key"');
  const refused = await failureOf(() => testPool('postgres://nobody@127.0.0.1:1/none').query('select'));
  expect(logged(refused)).toMatch(/ECONNREFUSED/);
  expect(logged(await failureOf(() => pool.query(`select nested('x')`)))).toContain('"within":"nested, line 2"');
});
