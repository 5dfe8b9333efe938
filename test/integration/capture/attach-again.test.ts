// Attaching again keeps the options that it does not name, and a notice names columns that are sent or writable from then on. Tables
// that Plank cannot follow are refused, or found when a table becomes one. DDL is followed; where it is not, plank.check() finds
// the difference, and its statement repairs it.

import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import { admin } from '../../support/servers/admin.ts';
import { createDatabase, type TestDatabase } from '../../support/servers/servers.ts';
import { Capture } from '../../support/truth/capture.ts';

let database: TestDatabase;
let capture: Capture;
const notices: string[] = [];

async function open(): Promise<void> {
  database = await createDatabase();
  capture = await Capture.start(database.url);
  capture.writer.on('notice', ({ message }) => notices.push(message ?? ''));
}

async function close(): Promise<void> {
  await capture?.stop();
  await database?.drop();
}

const problems = () =>
  capture.ask('select name, problem from plank.check() order by 1, 2') as Promise<{ name: string; problem: string }[]>;

/** Runs the statement of each problem, until no problem is left. */
async function repair(): Promise<void> {
  for (let round = 0; round < 4; round++) {
    const [first] = await problems();
    if (!first) return;
    await capture.writer.query(first.problem.slice(first.problem.indexOf('; run: ') + '; run: '.length));
  }
  expect(await problems()).toEqual([]);
}

describe('attaching again', () => {
  beforeAll(async () => {
    await open();
    await capture.run(`create table people (id integer primary key, name text, "pass word" text, made date);
      select plank.attach('people', exclude => '{pass word}', read_only => '{made}')`);
  });
  afterAll(close);

  const shown = 'plank: of public.people these columns are sent to clients from now on: ';
  const writable = 'plank: of public.people these columns are writable over REST from now on: ';
  test.each([
    ['nothing', '', ['id', 'name', 'made'], ['made'], []],
    ['read_only', ", read_only => '{name}'", ['id', 'name', 'made'], ['name'], [`${writable}made`]],
    ['exclude', ", exclude => '{pass word,made}'", ['id', 'name'], ['name'], []],
    ['exclude of less', ", exclude => '{made}'", ['id', 'name', 'pass word'], ['name'], [`${shown}"pass word"`]],
    ['null', ', exclude => null, read_only => null', ['id', 'name', 'pass word'], ['name'], []],
    [
      'empty lists',
      ", exclude => '{}', read_only => '{}'",
      ['id', 'name', 'pass word', 'made'],
      [],
      [`${shown}made`, `${writable}name`],
    ],
    ['both', ", exclude => '{pass word}', read_only => '{made}'", ['id', 'name', 'made'], ['made'], []],
  ] as const)('attaching again with %s keeps the other options', async (_, options, columns, readOnly, expected) => {
    notices.length = 0;
    await capture.run(`select plank.attach('people'${options})`);
    expect(notices).toEqual(expected);
    const rows = await admin(
      database.url,
      `select c->>'name' as name, c->>'writable' as writable from plank.catalog, json_array_elements(columns) c where name = 'people'`,
    );
    expect(rows.map(({ name }) => name)).toEqual(columns);
    expect(rows.flatMap(({ name, writable }) => (writable === 'false' ? [name] : []))).toEqual(
      readOnly.filter((name) => (columns as readonly string[]).includes(name)),
    );
    const [change] = await capture.run("insert into people values (1, 'a', 'p', '2024-01-01')");
    expect(Object.keys(JSON.parse(change!.new!))).toEqual(columns);
    await capture.run('delete from people');
    expect(await problems()).toEqual([]);
  });

  test('attaching again keeps both options across DDL of the columns', async () => {
    await capture.run(`alter table people rename column "pass word" to hash; alter table people rename column made to created;
      alter table people drop column name; alter table people add column name text`);
    notices.length = 0;
    await capture.run("select plank.attach('people')");
    expect(notices).toEqual([]);
    expect(await capture.brief("insert into people values (1, 'p', '2024-01-01', 'a')")).toEqual([
      'I 1 {"id":1,"created":"2024-01-01","name":"a"}',
    ]);
    // a column that is added again under its name is excluded as before
    await capture.run('alter table people drop column hash; alter table people add column hash text');
    expect(await capture.brief("update people set hash = 'q'")).toEqual([
      'U 1 {"id":1,"created":"2024-01-01","name":"a"} {"id":1,"created":"2024-01-01","name":"a"}',
    ]);
    const [row] = await admin(
      database.url,
      "select read_only::text, excluded::text from plank.attached where name = 'people'",
    );
    expect(row).toEqual({ read_only: '{created}', excluded: '{6}' });
    notices.length = 0;
    await capture.run("select plank.detach('people')");
    expect(notices).toEqual([
      'plank: public.people no longer excludes hash; name these columns again when you attach the table again',
    ]);
  });
});

describe('tables that Plank cannot follow', () => {
  beforeAll(async () => {
    await open();
    await capture.writer.query(`create extension if not exists pgcrypto; create extension file_fdw; create server files foreign data wrapper file_fdw;
      create type shape_of as (id integer, v text)`);
  });
  afterAll(close);

  test.each([
    [
      'a foreign table',
      "create foreign table T (id integer) server files options (filename '/dev/null')",
      'is not a table',
    ],
    ['a sequence', 'create sequence T', 'is not a table'],
    ['an index', 'create table T_of (id integer); create index T on T_of (id)', 'is not a table'],
    ['a composite type', 'create type T as (id integer)', 'is not a table'],
    ['a view with a trigger', 'create view T as select 1 as id', 'is not a table'],
    ['an unlogged table', 'create unlogged table T (id integer primary key)', 'is unlogged'],
    [
      'a table with inheriting tables',
      'create table T (id integer primary key); create table T_heir () inherits (T)',
      'is inherited by public.T_heir',
    ],
    [
      'a table that inherits',
      'create table T_from (id integer); create table T (primary key (id)) inherits (T_from)',
      'inherits from public.T_from',
    ],
    [
      'a partition of a partition',
      'create table T_whole (id integer primary key) partition by range (id); create table T_half partition of T_whole for values from (0) to (9) partition by range (id); create table T partition of T_half for values from (0) to (2)',
      'is a partition; attach its parent public.T_half',
    ],
    [
      'a table with an unlogged partition',
      'create table T (id integer primary key) partition by range (id); create unlogged table T_1 partition of T for values from (0) to (9)',
      'is unlogged in its partition public.T_1',
    ],
    [
      'a table with a foreign partition',
      "create table T (id integer) partition by range (id); create foreign table T_1 partition of T for values from (0) to (9) server files options (filename '/dev/null')",
      'has the partition public.T_1, a foreign table',
    ],
    [
      'a table of an extension',
      'create table T (id integer primary key); alter extension pgcrypto add table T',
      'belongs to the extension pgcrypto',
    ],
    ['a table without a key', 'create table T (id integer unique)', 'has no primary key'],
  ])('attach refuses %s', async (_, setUp, why) => {
    const name = `t${(number += 1)}`;
    await capture.writer.query(setUp.replaceAll(/\bT(?=\b|_)/g, name));
    const expected = `plank: cannot attach: public.${name} ${why.replace(/\bT(?=_)/, name)}`;
    await expect(capture.writer.query(`select plank.attach('${name}')`)).rejects.toThrow(expected);
    expect(await capture.changes()).toEqual([]);
  });
  let number = 0;

  test.each([
    ['typed', 'create table T of shape_of (primary key (id))'],
    [
      'partitioned',
      'create table T (id integer primary key, v text) partition by hash (id); create table T_1 partition of T for values with (modulus 1, remainder 0)',
    ],
    ['called with a dot', 'create table "T.x" (id integer primary key, v text)'],
  ])('attach accepts a table that is %s', async (kind, setUp) => {
    const name = `t${(number += 1)}`;
    await capture.writer.query(setUp.replaceAll(/\bT(?=\b|_)/g, name));
    const table = kind === 'called with a dot' ? `"${name}.x"` : name;
    await capture.run(`select plank.attach('${table}')`);
    expect(await capture.brief(`insert into ${table} values (1, 'a'); truncate ${table}`)).toEqual([
      'I 1 {"id":1,"v":"a"}',
      'T',
    ]);
    await capture.run(`select plank.detach('${table}')`);
  });

  test.each([
    [
      'unlogged',
      'alter table T set unlogged',
      'public.T is unlogged: Postgres empties it after a crash, and no trigger fires for that; run: alter table public.T set logged',
    ],
    [
      'inherited',
      'create table T_heir () inherits (T)',
      'public.T is inherited by public.T_heir, whose rows are part of it and whose changes are not captured; run: alter table public.T_heir no inherit public.T',
    ],
    [
      'an inheriting table',
      'create table T_from (id integer not null, v text); alter table T inherit T_from',
      'public.T inherits from public.T_from, and changes that are made through public.T_from are not captured; run: alter table public.T no inherit public.T_from',
    ],
    [
      'a partition',
      'create table T_whole (id integer primary key, v text, secret text) partition by range (id); alter table T_whole attach partition T for values from (0) to (9)',
      "public.T is a partition; attach its parent public.T_whole, partitions come with it; run: select plank.detach('public.T')",
    ],
    [
      'a table of an extension',
      'alter extension pgcrypto add table T',
      'public.T belongs to the extension pgcrypto, which may change it without notice; run: alter extension pgcrypto drop table public.T',
    ],
    [
      'a table without a key',
      'alter table T drop constraint T_pkey',
      'public.T has no primary key, so its rows cannot be told apart; run: alter table public.T add primary key (id)',
    ],
    [
      'a table whose key is excluded',
      'alter table T drop constraint T_pkey, add primary key (secret)',
      "a column of its primary key (secret) is excluded; run: select plank.attach('public.T', exclude => …)",
    ],
  ])('plank.check() finds a table that has become %s', async (_, ddl, problem) => {
    const name = `t${(number += 1)}`;
    const named = (text: string) => text.replaceAll(/\bT(?=\b|_)/g, name);
    await capture.run(
      named(
        "create table T (id integer primary key, v text, secret text); select plank.attach('T', exclude => '{secret}')",
      ),
    );
    await capture.run(named(ddl));
    expect(await problems()).toContainEqual({ name, problem: named(problem) });
    // no write fails meanwhile, and no change has the excluded column
    await capture.writer.query(named("insert into T values (1, 'a', 'hush'); update T set v = 'b'; delete from T"));
    await capture.changes();
    expect(await admin(database.url, "select * from plank.outbox o where o::text like '%hush%'")).toEqual([]);
    if (problem.includes('…')) await capture.run(named('alter table T drop constraint T_pkey, add primary key (id)'));
    await repair();
    expect(await problems()).toEqual([]);
    await capture.changes();
    await capture.writer.query(named('drop table T cascade'));
    await capture.changes();
  });

  test('plank.check() finds a foreign partition, and the other partitions are captured', async () => {
    await capture.run(`create table mixed (id integer not null, v text) partition by range (id); alter table mixed add primary key (id);
      create table mixed_1 partition of mixed for values from (0) to (9); select plank.attach('mixed');
      alter table mixed drop constraint mixed_pkey;
      create foreign table mixed_2 partition of mixed for values from (9) to (20) server files options (filename '/dev/null');
      create table mixed_3 partition of mixed for values from (20) to (30)`);
    expect((await problems()).map(({ problem }) => problem)).toContain(
      'public.mixed has the partition public.mixed_2, a foreign table, whose changes cannot be captured; run: alter table public.mixed detach partition public.mixed_2',
    );
    expect(await capture.brief("insert into mixed_3 values (21, 'a')")).toEqual(['I 21 {"id":21,"v":"a"}']);
    await capture.run('alter table mixed detach partition mixed_2');
    await repair();
    await capture.run('drop table mixed cascade');
  });

  test('only one of two tables with the same name for clients is served', async () => {
    await capture.run(`create schema shop; create table shop.lines (id integer primary key); create table "shop.lines" (id integer primary key);
      select plank.attach('shop.lines')`);
    await expect(capture.writer.query(`select plank.attach('"shop.lines"')`)).rejects.toThrow(
      'another attached table has the name shop.lines too',
    );
    await capture.run(
      `alter table "shop.lines" rename to other; select plank.attach('other'); alter table other rename to "shop.lines"`,
    );
    expect(await admin(database.url, `select schema from plank.catalog where name = 'shop.lines'`)).toEqual([
      { schema: 'shop' },
    ]);
    expect(await problems()).toEqual([
      {
        name: 'shop.lines',
        problem: `another attached table, shop.lines, has the same name, and only one is served; run: select plank.detach('public."shop.lines"')`,
      },
    ]);
    await repair();
  });

  test('DDL that Plank cannot follow does not fail', async () => {
    await capture.run(
      `create schema fragile; create table fragile.t (id integer primary key); select plank.attach('fragile.t')`,
    );
    await admin(database.url, 'alter function plank.shape(plank.catalog) rename to lost');
    await capture.writer.query(
      'alter table fragile.t add column v text; alter schema fragile rename to broken; drop table broken.t',
    );
    await admin(database.url, 'alter function plank.lost(plank.catalog) rename to shape');
    await repair();
  });
});
