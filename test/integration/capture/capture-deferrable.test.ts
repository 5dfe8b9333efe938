// Keys whose uniqueness is checked late: two rows may have one key for a while. Whatever a transaction does to them, what it is told as leads,
// in order, from what SELECT gave to what SELECT gives (Capture looks after that), and each event's old image is what was there.

import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import { createDatabase, type TestDatabase } from '../../support/servers/servers.ts';
import { Capture } from '../../support/truth/capture.ts';

let database: TestDatabase;
let capture: Capture;

beforeAll(async () => {
  database = await createDatabase();
  capture = await Capture.start(database.url);
});
afterAll(async () => {
  await capture?.stop();
  await database?.drop();
});

const cases: Record<string, string> = {
  'the new row comes before the old one goes': `insert into T values (1, 'new'); delete from T where v = 'a'`,
  'the same, and both are alike': `insert into T values (1, 'a'); delete from T where ctid = (select min(ctid) from T where id = 1)`,
  'the old one changes meanwhile': `insert into T values (1, 'new'); update T set v = 'x' where v = 'a'; delete from T where v = 'x'`,
  'both change meanwhile': `update T set v = 'x' where v = 'a'; insert into T values (1, 'new'); update T set v = v || '!' where id = 1; delete from T where v = 'x!'`,
  'the new one changes later': `insert into T values (1, 'new'); delete from T where v = 'a'; update T set v = 'newer' where id = 1; update T set v = 'newest' where id = 1`,
  'several in one statement': `insert into T select id, v || v from T; delete from T where length(v) = 1`,
  'a swap in one statement': 'update T set id = 3 - id where id in (1, 2)',
  'a swap in two statements': `update T set id = 2 where v = 'a'; update T set id = 1 where v = 'b'`,
  'a ring of three': `update T set id = 2 where v = 'a'; update T set id = 3 where v = 'b'; update T set id = 1 where v = 'c'`,
  'a swap of equal rows': `update T set v = 'same'; update T set id = 2 where id = 1; update T set id = 1 where ctid = (select min(ctid) from T where id = 2)`,
  'all get one key, and go apart': `update T set id = 1; update T set id = 2 where v = 'b'; update T set id = 3 where v = 'c'`,
  'all get one key, and change places': `update T set id = 1; update T set id = 2 where v = 'a'; update T set id = 3 where v = 'b'`,
  'a row passes through the key of another': `update T set id = 1 where v = 'b'; update T set id = 9 where v = 'b'`,
  'a row comes and goes under the key of another': `insert into T values (1, 'tmp'); delete from T where v = 'tmp'`,
  'the same, and the other one changes': `insert into T values (1, 'tmp'); update T set v = 'x' where v = 'a'; delete from T where v = 'tmp'`,
  'keys are shifted': 'update T set id = id + 1',
  'keys are shifted one by one': `update T set id = 2 where v = 'a'; update T set id = 3 where v = 'b'; update T set id = 4 where v = 'c'`,
  'within savepoints': `insert into T values (1, 'x'); savepoint s; delete from T where v = 'a'; rollback to s; insert into T values (2, 'y'); delete from T where v in ('a', 'b')`,
  'rolled back to before': `savepoint s; insert into T values (1, 'x'); delete from T where v = 'a'; rollback to s; update T set v = 'z' where id = 1`,
  'behind a TRUNCATE': `delete from T where id = 1; truncate T; insert into T values (1, 'x'), (1, 'y'); delete from T where v = 'x'`,
  'checked in between': `insert into T values (1, 'x'); delete from T where v = 'a'; set constraints all immediate; set constraints all deferred; insert into T values (1, 'y'); delete from T where v = 'x'`,
  merged: `insert into T values (1, 'x'); merge into T using (values ('a')) s(v) on T.v = s.v when matched then delete`,
  'in one statement with CTEs': `with d as (delete from T where v = 'a' returning id) insert into T select id, 'x' from d`,
  'by a trigger': `insert into T_by values (1)`,
};
const kinds: Record<string, string> = {
  'a table': `create table T (id int, v text, primary key (id) deferrable initially deferred)`,
  'a partitioned one': `create table T (id int, v text, primary key (id) deferrable initially deferred) partition by range (id);
    create table T_1 partition of T for values from (0) to (2); create table T_2 partition of T for values from (2) to (100)`,
  'one with more columns in the key': `create table T (id int, v text, k int default 7, primary key (k, id) deferrable initially deferred)`,
};

const settings = Object.entries(kinds).flatMap(([kind, made]) => [
  [kind, made, 'read committed'],
  ...(kind === 'a table' ? [[kind, made, 'serializable']] : []),
]) as [string, string, string][];

describe.each(settings)('%s', (kind, made, isolation) => {
  test.each(Object.entries(cases))('%s', async (name, sql) => {
    const table = `${isolation[0]}${Object.keys(kinds).indexOf(kind)}_${Object.keys(cases).indexOf(name)}`;
    const named = (text: string) => text.replaceAll(/\bT(?=_|\b)/g, table);
    await capture.run(
      named(`${made}; insert into T values (1, 'a'), (2, 'b'), (3, 'c'); select plank.attach('T');
        create table T_by (n int); create function T_f() returns trigger language plpgsql as
          $$ begin insert into T values (1, 'x'); update T set id = 2 where v = 'x'; delete from T where v = 'b'; return null; end $$;
        create trigger T_t after insert on T_by for each row execute function T_f()`),
    );
    const changes = await capture.run(named(`begin isolation level ${isolation}; ${sql}; commit`));
    if (!name.includes('under the key')) expect(changes.length).toBeGreaterThan(0);
    // what follows goes on from there
    await capture.run(
      named(`update T set v = v || '.'; delete from T where id = 1; insert into T values (1, 'again')`),
    );
  });
});

test('tells every step where there is an order, and the outcome where there is none', async () => {
  await capture.run(
    `create table told (id int primary key deferrable, v text); insert into told values (1, 'a'), (2, 'b'); select plank.attach('told')`,
  );
  const deferred = (sql: string) => capture.brief(`begin; set constraints all deferred; ${sql}; commit`);
  expect(await deferred(`insert into told values (1, 'x'); delete from told where v = 'a'`)).toEqual([
    'D 1 {"id":1,"v":"a"}',
    'I 1 {"id":1,"v":"x"}',
  ]);
  expect(await deferred(`update told set v = 'y' where id = 1; update told set v = 'z' where id = 1`)).toHaveLength(2);
  expect(await deferred(`insert into told values (1, 'tmp'); delete from told where v = 'tmp'`)).toEqual([]);
  expect(
    await deferred(
      `insert into told values (1, 'tmp'); update told set v = 'w' where v = 'z'; delete from told where v = 'tmp'`,
    ),
  ).toEqual(['U 1 {"id":1,"v":"z"} {"id":1,"v":"w"}']);
});
