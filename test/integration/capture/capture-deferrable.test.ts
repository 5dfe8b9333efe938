// Keys whose uniqueness is checked late: two rows may have one key for a while. Whatever a transaction does to them, its changes lead,
// in order, from the rows before to the rows after (Capture checks this), and each old image is that of the row before.

import { describe, expect, test } from 'vitest';
import { captured } from '../../support/stage/captured.ts';

const capture = captured();

const cases: Record<string, string> = {
  'a new row that comes before the old one goes': `insert into T values (1, 'new'); delete from T where v = 'a'`,
  'a new row that equals the old one': `insert into T values (1, 'a'); delete from T where ctid = (select min(ctid) from T where id = 1)`,
  'an old row that changes meanwhile': `insert into T values (1, 'new'); update T set v = 'x' where v = 'a'; delete from T where v = 'x'`,
  'an old and a new row that change meanwhile': `update T set v = 'x' where v = 'a'; insert into T values (1, 'new'); update T set v = v || '!' where id = 1; delete from T where v = 'x!'`,
  'a new row that changes later': `insert into T values (1, 'new'); delete from T where v = 'a'; update T set v = 'newer' where id = 1; update T set v = 'newest' where id = 1`,
  'several new rows in one statement': `insert into T select id, v || v from T; delete from T where length(v) = 1`,
  'a swap in one statement': 'update T set id = 3 - id where id in (1, 2)',
  'a swap in two statements': `update T set id = 2 where v = 'a'; update T set id = 1 where v = 'b'`,
  'a ring of three': `update T set id = 2 where v = 'a'; update T set id = 3 where v = 'b'; update T set id = 1 where v = 'c'`,
  'a swap of equal rows': `update T set v = 'same'; update T set id = 2 where id = 1; update T set id = 1 where ctid = (select min(ctid) from T where id = 2)`,
  'one key for all rows, which get their own again': `update T set id = 1; update T set id = 2 where v = 'b'; update T set id = 3 where v = 'c'`,
  'one key for all rows, which exchange their own': `update T set id = 1; update T set id = 2 where v = 'a'; update T set id = 3 where v = 'b'`,
  'a row that passes through the key of another': `update T set id = 1 where v = 'b'; update T set id = 9 where v = 'b'`,
  'a row that comes and goes under the key of another': `insert into T values (1, 'tmp'); delete from T where v = 'tmp'`,
  'a row that comes and goes, and the other one changes': `insert into T values (1, 'tmp'); update T set v = 'x' where v = 'a'; delete from T where v = 'tmp'`,
  'a shift of all keys': 'update T set id = id + 1',
  'a shift of keys one by one': `update T set id = 2 where v = 'a'; update T set id = 3 where v = 'b'; update T set id = 4 where v = 'c'`,
  'a savepoint': `insert into T values (1, 'x'); savepoint s; delete from T where v = 'a'; rollback to s; insert into T values (2, 'y'); delete from T where v in ('a', 'b')`,
  'a rollback to a savepoint before': `savepoint s; insert into T values (1, 'x'); delete from T where v = 'a'; rollback to s; update T set v = 'z' where id = 1`,
  'a TRUNCATE before': `delete from T where id = 1; truncate T; insert into T values (1, 'x'), (1, 'y'); delete from T where v = 'x'`,
  'a check in between': `insert into T values (1, 'x'); delete from T where v = 'a'; set constraints all immediate; set constraints all deferred; insert into T values (1, 'y'); delete from T where v = 'x'`,
  'a MERGE': `insert into T values (1, 'x'); merge into T using (values ('a')) s(v) on T.v = s.v when matched then delete`,
  'one statement with CTEs': `with d as (delete from T where v = 'a' returning id) insert into T select id, 'x' from d`,
  'a trigger that does it': `insert into T_by values (1)`,
};
const kinds: Record<string, string> = {
  'a table': `create table T (id int, v text, primary key (id) deferrable initially deferred)`,
  'a partitioned table': `create table T (id int, v text, primary key (id) deferrable initially deferred) partition by range (id);
    create table T_1 partition of T for values from (0) to (2); create table T_2 partition of T for values from (2) to (100)`,
  'a table with several columns in the key': `create table T (id int, v text, k int default 7, primary key (k, id) deferrable initially deferred)`,
};

const settings = Object.entries(kinds).flatMap(([kind, made]) => [
  [kind, made, 'read committed'],
  ...(kind === 'a table' ? [[kind, made, 'serializable']] : []),
]) as [string, string, string][];

describe.each(settings)('%s', (kind, made, isolation) => {
  test.each(Object.entries(cases))('the changes lead from SELECT to SELECT with %s', async (name, sql) => {
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
    // later changes continue from there
    await capture.run(
      named(`update T set v = v || '.'; delete from T where id = 1; insert into T values (1, 'again')`),
    );
  });
});

test('every step is captured if the steps have an order, and otherwise their outcome', async () => {
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
