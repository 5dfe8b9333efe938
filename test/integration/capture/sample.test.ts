// `migrate` changes nothing outside the schema "plank", whatever is there. The sample table is created only with PLANK_SAMPLE, and only
// if nothing else is called items.

import { execFile } from 'node:child_process';
import { randomBytes } from 'node:crypto';
import { promisify } from 'node:util';
import { afterEach, describe, expect, test } from 'vitest';
import { migrate } from '#shared/postgres/migrate.ts';
import { makeSample } from '#shared/postgres/sample.ts';
import { admin } from '../../support/servers/admin.ts';
import { postgresUrl } from '../../support/servers/servers.ts';

const run = promisify(execFile);
const unique = randomBytes(4).toString('hex');
const cleanups: (() => Promise<unknown>)[] = [];

afterEach(async () => {
  for (const cleanup of cleanups.splice(0).toReversed()) await cleanup();
});

async function emptyDatabase(): Promise<string> {
  const url = new URL(await postgresUrl());
  const name = `plank_test_sample_${randomBytes(6).toString('hex')}`;
  await admin(url.href, `create database ${name}`);
  const root = url.href;
  cleanups.push(() => admin(root, `drop database ${name} with (force)`));
  url.pathname = `/${name}`;
  return url.href;
}

async function runMigrate(env: Record<string, string>): Promise<string> {
  const { stdout } = await run(process.execPath, ['shared/postgres/migrate-cli.ts'], {
    env: { PATH: process.env.PATH, ...env },
    timeout: 30_000,
  });
  return stdout;
}

// statistics change by themselves
const volatile = ['relpages', 'reltuples', 'relallvisible', 'relallfrozen', 'relfrozenxid', 'relminmxid'];
/** catalog → the arguments of pg_identify_object for its rows */
const catalogs: Record<string, string> = Object.fromEntries([
  ...'namespace class proc type constraint trigger rewrite policy operator opclass cast collation conversion language extension event_trigger publication publication_rel default_acl ts_config foreign_server authid database tablespace'
    .split(' ')
    .map((name) => [`pg_${name}`, `'pg_${name}'::regclass, t.oid, 0`]),
  ['pg_attribute', "'pg_class'::regclass, t.attrelid, t.attnum"],
  ['pg_index', "'pg_class'::regclass, t.indexrelid, 0"],
  ['pg_description', 't.classoid, t.objoid, t.objsubid'],
  ['pg_seclabel', 't.classoid, t.objoid, t.objsubid'],
]);

/**
 * The rows of the catalogs outside the schema "plank", with the transaction that wrote each row last. Of objects with an oid from
 * `least` on.
 */
async function outside(url: string, least = 0): Promise<string[]> {
  const selects = Object.entries(catalogs).map(
    ([name, identity]) => `
    select '${name} ' || coalesce(i.identity, '') || ' ' || t.xmin || ' ' || (to_jsonb(t) - '{${volatile.join()}}'::text[])::text as row
    from ${name} t cross join lateral pg_identify_object(${identity}) i
    where ${identity.split(', ')[1]}::bigint >= ${least} and coalesce(i.schema, '') <> 'plank' and coalesce(i.identity, '') !~ '(^|[ ."])plank[.]'
      and not (i.type = 'event trigger' and i.identity like 'plank\\_%') and coalesce(i.identity, '') <> 'plank'
      and not (coalesce(i.schema, '') = 'pg_toast' and substring(i.identity from 'pg_toast_(\\d+)')::oid in (
        select oid from pg_class where relnamespace = to_regnamespace('plank')))`,
  );
  // without roles and databases of other tests
  const rows = await admin(url, `${selects.join(' union all ')} order by 1`);
  return rows.map((row) => row.row!).filter((row) => !/^pg_(authid|database) (?!.*sample_owner)/.test(row));
}

/** A schema as an application has it, with defaults for objects that are created later. */
const application = `
  create table users (id bigint primary key, email text, password_hash text, created_at timestamp not null, updated_at timestamp not null);
  create function touch_updated_at() returns trigger language plpgsql as $$ begin new.updated_at := now(); return new; end $$;
  create trigger items_touch_updated_at before update on users for each row execute function touch_updated_at();
  create publication everything for all tables;
  alter default privileges grant select on tables to public;
  alter default privileges in schema public grant all on tables to public;
  create function see() returns event_trigger language plpgsql as $$ begin end $$;
  create event trigger see on ddl_command_end execute function see();
  comment on table users is 'The sample table of Plank.';`;

const rails = `create table items (id bigserial primary key, name varchar, created_at timestamp(6) not null, updated_at timestamp(6) not null);
  insert into items (name, created_at, updated_at) values ('theirs', now(), now())`;

const shapes: [shape: string, sql: string, named: string][] = [
  ['as Rails makes it', rails, 'table public.items'],
  ['without a primary key', 'create table items (name text)', 'table public.items'],
  [
    'with a key of text and other columns',
    'create table items (sku text primary key, price numeric)',
    'table public.items',
  ],
  [
    'just like the sample, but not created by Plank',
    `create table items (id bigint generated always as identity primary key, name text not null, value double precision,
       created_at timestamptz not null default now(), updated_at timestamptz not null default now())`,
    'table public.items',
  ],
  ['partitioned', 'create table items (id bigint primary key) partition by range (id)', 'table public.items'],
  ['a view', 'create view items as select 1 as id', 'view public.items'],
  ['a materialized view', 'create materialized view items as select 1 as id', 'view public.items'],
  ['a sequence', 'create sequence items', 'sequence public.items'],
  ['an index', 'create index items on users (email)', 'index public.items'],
  ['an enum', "create type items as enum ('a')", 'type public.items'],
  ['a composite type', 'create type items as (a integer)', 'type public.items'],
  ['a domain', 'create domain items as text', 'type public.items'],
  [
    'in a schema first in the path',
    "create schema app; create table app.items (id bigint primary key); do $$ begin execute format('alter database %I set search_path = app, public', current_database()); end $$",
    'table app.items',
  ],
  [
    'in a schema last in the path',
    "create schema app; create table app.items (id bigint primary key); do $$ begin execute format('alter database %I set search_path = public, app', current_database()); end $$",
    'table app.items',
  ],
  [
    'of another owner',
    `create role sample_owner_${unique}; create table items (id bigint primary key); alter table items owner to sample_owner_${unique}`,
    'table public.items',
  ],
];

describe('a database of an application', () => {
  test("an application's database stays as it is, whatever its items are, with and without PLANK_SAMPLE", async () => {
    const url = await emptyDatabase();
    cleanups.unshift(async () => admin(await postgresUrl(), `drop role if exists sample_owner_${unique}`));
    await admin(url, application);
    await admin(url, rails);
    const before = await outside(url);
    expect(before.length).toBeGreaterThan(1_000);
    expect(await runMigrate({ DATABASE_URL: url })).not.toContain('sample');
    expect(await outside(url)).toEqual(before);
    const output = await runMigrate({ DATABASE_URL: url, PLANK_SAMPLE: 'true' });
    expect(output).toMatch(
      /^the database is up to date .+\nthe sample table "items" was not made: .+ which is not Plank's\n$/,
    );
    expect(await outside(url)).toEqual(before);
    await admin(url, 'drop table items');

    for (const [shape, sql, named] of shapes) {
      await admin(url, sql);
      const whole = await outside(url, 16_384);
      const problem = `the sample table "items" was not made: there is a ${named}, which is not Plank's`;
      expect(await makeSample(url), shape).toBe(problem);
      expect(await outside(url, 16_384), shape).toEqual(whole);
      const [{ kind } = {}] = await admin(
        url,
        "select relkind as kind from pg_class where oid = to_regclass('public.items')",
      );
      const drop = kind === 'm' ? named.replace('view', 'materialized view') : named;
      await admin(url, named.includes(' app.') ? 'drop schema app cascade' : `drop ${drop} cascade`);
    }
    expect(await admin(url, 'select * from plank.attached')).toEqual([]);
    expect(await admin(url, "select to_regproc('plank.touch_updated_at') as f")).toEqual([{ f: null }]);
  });

  test.each([
    ['a table', 'create schema plank; create table plank.boards (id integer primary key)'],
    ['migrations of its own', 'create schema plank; create table plank.migrations (version text primary key)'],
    ['a function', 'create schema plank; create function plank.f() returns integer language sql as $$ select 1 $$'],
    ['a type', "create schema plank; create type plank.wood as enum ('oak')"],
  ])('a database whose schema "plank" has %s is refused, and stays as it is', async (_, sql) => {
    const url = await emptyDatabase();
    await admin(url, sql);
    const all =
      'select (select count(*) from pg_class) + (select count(*) from pg_proc) + (select count(*) from pg_event_trigger) as n';
    const before = await admin(url, all);
    await expect(migrate(url)).rejects.toThrow(/^the database has a schema "plank" already, which Plank did not make/);
    expect(await admin(url, all)).toEqual(before);
  });
});

test('writes to attached tables go on under a publication for all tables', async () => {
  const url = await emptyDatabase();
  await admin(url, 'create publication everything for all tables');
  await migrate(url);
  await admin(
    url,
    `create table t (id integer primary key, v integer); select plank.attach('t');
     create function again() returns trigger language plpgsql as $$
       begin if new.v < 3 then update t set v = v + 1 where id = new.id; end if; return null; end $$;
     create trigger again after insert or update on t for each row execute function again()`,
  );
  for (const write of [
    'insert into t values (1, 1), (2, 2)',
    'update t set id = id + 10',
    'delete from t',
    'truncate t',
  ])
    await admin(url, write);
  await admin(url, "select plank.purge(term, interval '0', 1000000, 1000) from plank.leader");
  const bare = await admin(
    url,
    `select relname from pg_class c where relnamespace = 'plank'::regnamespace and relkind = 'r' and relreplident <> 'f'
       and not exists (select from pg_index i where i.indrelid = c.oid and i.indisprimary)`,
  );
  expect(bare).toEqual([]);
});

describe('the sample', () => {
  const attached = (url: string) => admin(url, 'select name, read_only::text from plank.attached');
  const whole = [{ name: 'items', read_only: '{created_at,updated_at}' }];

  test('the sample is created once: it stays dropped or detached, and a new schema "plank" keeps its rows', async () => {
    const url = await emptyDatabase();
    expect(await runMigrate({ DATABASE_URL: url, PLANK_SAMPLE: 'true' })).not.toContain('sample');
    expect(await attached(url)).toEqual(whole);
    await admin(url, "insert into items (name) values ('kept')");
    expect(await makeSample(url)).toBeUndefined();
    expect(await attached(url)).toEqual(whole);

    await admin(url, "select plank.detach('items')");
    await migrate(url);
    expect(await makeSample(url)).toBeUndefined();
    expect(await attached(url)).toEqual([]);

    await admin(url, 'drop schema plank cascade');
    await migrate(url);
    expect(await makeSample(url)).toBeUndefined();
    expect(await attached(url)).toEqual(whole);
    expect(await admin(url, 'update items set value = 1 returning name, updated_at > created_at as touched')).toEqual([
      { name: 'kept', touched: true },
    ]);

    await admin(url, 'drop table items');
    expect(await makeSample(url)).toBeUndefined();
    expect(await admin(url, "select to_regclass('items') as t")).toEqual([{ t: null }]);
  });

  test.each([
    [
      'has lost a column that it needs',
      'alter table items drop column updated_at',
      /was not made: plank: .*updated_at/,
    ],
    [
      'may not be made in public',
      'drop table items; drop schema public',
      /was not made: schema "public" does not exist/,
    ],
  ])('a sample that %s leaves nothing behind', async (_, sql, reason) => {
    const url = await emptyDatabase();
    await migrate(url);
    await makeSample(url);
    await admin(url, `drop schema plank cascade; ${sql}`);
    await migrate(url);
    expect(await makeSample(url)).toMatch(reason);
    expect(await attached(url)).toEqual([]);
    expect(await admin(url, "select to_regproc('plank.touch_updated_at') as f")).toEqual([{ f: null }]);
  });
});
