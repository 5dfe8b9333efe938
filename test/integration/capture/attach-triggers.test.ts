// Operators may disable the triggers of attached tables: DDL that is followed and attaching again leave them so, and do not wait for
// writers if they change nothing.

import type { Client } from 'pg';
import { beforeAll, describe, expect, test } from 'vitest';
import { admin } from '../../support/servers/admin.ts';
import { captured } from '../../support/stage/captured.ts';
import { session } from '../../support/truth/capture.ts';

const capture = captured();

async function problems(): Promise<Record<string, string>[]> {
  return capture.ask('select name, problem from plank.check() order by 1, 2');
}

/** trigger → how it is enabled: O(rigin), A(lways), R(eplica), D(isabled) */
async function enabled(table: string): Promise<Record<string, string>> {
  const rows = await admin(
    capture.url,
    `select tgname, tgenabled from pg_trigger where tgrelid = '${table}'::regclass and tgname like 'plank%' order by 1`,
  );
  return Object.fromEntries(rows.map((row) => [row['tgname'], row['tgenabled']]));
}

test('plank.check() finds triggers that are disabled, for replicas only, or missing', async () => {
  await capture.run("create table watched (id integer primary key); select plank.attach('watched')");
  expect(await problems()).toEqual([]);
  await admin(capture.url, 'set session_replication_role = replica; drop trigger plank_delete on watched');
  expect(await problems()).toEqual([
    {
      name: 'watched',
      problem: "trigger plank_delete is missing on public.watched; run: select plank.attach('public.watched')",
    },
  ]);
  await admin(capture.url, 'alter event trigger plank_ddl disable');
  await admin(
    capture.url,
    'alter table watched disable trigger plank_insert; alter table watched enable replica trigger plank_update',
  );
  const found = (await problems()).map((row) => row.problem);
  expect(found).toEqual([
    "trigger plank_delete is missing on public.watched; run: select plank.attach('public.watched')",
    'trigger plank_insert is disabled on public.watched; run: alter table public.watched enable trigger plank_insert',
    'trigger plank_update is disabled on public.watched; run: alter table public.watched enable trigger plank_update',
  ]);
  await admin(capture.url, 'alter event trigger plank_ddl enable');
  await capture.run("select plank.attach('watched')");
  expect((await problems()).map((row) => row.problem)).toEqual(found.slice(1));
  await capture.run('alter table watched enable trigger plank_insert, enable trigger plank_update');
  expect(await problems()).toEqual([]);
  expect(await capture.brief('insert into watched values (1); delete from watched')).toHaveLength(2);
});

test('DDL and attaching again leave triggers disabled or always enabled', async () => {
  await capture.run("create table quiet (id integer primary key, v text); select plank.attach('quiet')");
  await capture.run(`alter table quiet disable trigger plank_delete; alter table quiet enable always trigger plank_insert;
    alter table quiet enable replica trigger plank_truncate`);
  const before = { plank_delete: 'D', plank_insert: 'A', plank_truncate: 'R', plank_update: 'O' };
  expect(await enabled('quiet')).toEqual(before);
  await capture.run('alter table quiet add column w integer; alter table quiet rename to still');
  expect(await enabled('still')).toEqual(before);
  await capture.run("select plank.attach('still')");
  expect(await enabled('still')).toEqual(before);
  expect((await problems()).map((row) => row.problem)).toEqual([
    'trigger plank_delete is disabled on public.still; run: alter table public.still enable trigger plank_delete',
    'trigger plank_truncate is disabled on public.still; run: alter table public.still enable trigger plank_truncate',
  ]);
  expect(await capture.brief("set session_replication_role = replica; insert into still values (1, 'a', 2)")).toEqual([
    'I 1 {"id":1,"v":"a","w":2}',
  ]);
  await capture.writer.query('reset session_replication_role');
  await capture.run('drop table still');
});

test('attach replaces a foreign trigger with its own name, and keeps how it was enabled', async () => {
  await capture.run("create table taken (id integer primary key); select plank.attach('taken')");
  await capture.run(`create function nothing() returns trigger language plpgsql as 'begin return null; end';
    create or replace trigger plank_insert after insert on taken for each statement execute function nothing();
    create or replace trigger plank_delete after delete on taken for each statement execute function nothing();
    alter table taken enable always trigger plank_insert, disable trigger plank_delete`);
  expect(await enabled('taken')).toMatchObject({ plank_insert: 'A', plank_delete: 'D', plank_update: 'O' });
  expect(await capture.brief('insert into taken values (1)')).toEqual(['I 1 {"id":1}']);
  await capture.run('alter table taken enable trigger plank_delete');
  expect(await capture.brief('delete from taken')).toEqual(['D 1 {"id":1}']);
});

test('attach does not wait for writers if it creates no trigger, not even on partitions', async () => {
  await capture.run(`create table busy (id integer primary key, v text);
    create table split (id integer primary key) partition by range (id);
    create table split_1 partition of split for values from (0) to (10);
    create table split_2 partition of split for values from (10) to (20);
    select plank.attach('busy'), plank.attach('split')`);
  const writing = await session(capture.url);
  try {
    await writing.query("begin; insert into busy values (1, 'a'); insert into split_1 values (1)");
    await capture.writer.query("set lock_timeout = '1s'; select plank.attach('busy'), plank.attach('split')");
    await writing.query('commit');
    expect((await capture.changes()).map((change) => change.action).sort()).toEqual(['I', 'I']);
  } finally {
    await writing.end();
    await capture.writer.query('reset lock_timeout');
  }
});

describe('many attached tables', () => {
  beforeAll(async () => {
    await capture.writer.query(`do $$ begin
      for i in 1 .. 100 loop
        execute format('create table many_%s (id integer primary key)', i);
        perform plank.attach(format('many_%s', i)::regclass);
      end loop;
    end $$`);
  });

  test('plank.check() over many tables ends soon', async () => {
    // gateways query with this deadline
    await capture.writer.query("set statement_timeout = '1500ms'");
    expect((await capture.writer.query('select * from plank.check()')).rows).toEqual([]);
  });

  // (each call of a function that has a query of its own costs 0.01 to 0.3 ms)
  test.each([
    ['plank.check', 'select * from plank.check()', 20],
    ['plank.catalog', 'select * from plank.catalog', 10],
    ['attaching one again', "select plank.attach('many_1')", 2],
    [
      'DDL of other tables',
      'create table other (id integer); alter table other add column v text; alter table other rename to others; drop table others',
      0.5,
    ],
    ['DDL of other types', "create type other as enum ('a'); alter type other add value 'b'; drop type other", 0.5],
  ])('few functions are called for each attached table: %s', async (_, sql, most) => {
    const tracked = await session(capture.url);
    try {
      await tracked.query("set track_functions = 'all'");
      const before = await calls(tracked);
      await tracked.query(sql);
      const after = await calls(tracked);
      expect((after - before) / 100).toBeLessThan(most);
    } finally {
      await tracked.end();
    }
  });

  /** calls of Plank's functions so far */
  async function calls(client: Client): Promise<number> {
    await client.query('select pg_stat_force_next_flush()');
    const { rows } = await client.query(
      "select coalesce(sum(calls), 0)::integer as calls from pg_stat_user_functions where schemaname = 'plank'",
    );
    return rows[0].calls;
  }
});
