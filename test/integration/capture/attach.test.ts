// I10, and the images of captured rows: which tables can be attached, images with the same bytes for every writer, and columns that
// never leave the database.

import { randomBytes } from 'node:crypto';
import type { Client } from 'pg';
import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import { Catalog } from '#gateway/catalog/catalog.ts';
import { createPool } from '#shared/postgres/postgres.ts';
import { admin } from '../../support/servers/admin.ts';
import { createDatabase, type TestDatabase } from '../../support/servers/servers.ts';
import { Capture, session } from '../../support/truth/capture.ts';

let database: TestDatabase;
let capture: Capture;

async function open(): Promise<void> {
  database = await createDatabase();
  capture = await Capture.start(database.url);
}

async function close(): Promise<void> {
  await capture?.stop();
  await database?.drop();
}

describe('attaching', () => {
  beforeAll(open);
  afterAll(close);

  test.each([
    [
      'a table without a primary key',
      'create table keyless (id integer unique)',
      "'keyless'",
      /keyless has no primary key/,
    ],
    ['a view', 'create view seen as select 1 as id', "'seen'", /seen is not a table/],
    ['a materialized view', 'create materialized view stored as select 1 as id', "'stored'", /stored is not a table/],
    [
      'a temporary table',
      'create temp table brief (id integer primary key)',
      "'brief'",
      /brief is a temporary or system table/,
    ],
    ['a system table', 'select', "'pg_catalog.pg_class'", /pg_class is a temporary or system table/],
    ["a table of Plank's own", 'select', "'plank.leader'", /plank.leader is a temporary or system table/],
    [
      'a partition',
      'create table whole (id integer primary key) partition by range (id); create table part partition of whole for values from (0) to (9)',
      "'part'",
      /part is a partition; attach its parent public.whole/,
    ],
    [
      'an unknown excluded column',
      'create table plain (id integer primary key, v text)',
      "'plain', exclude => '{v,w}'",
      /plain has no column w$/,
    ],
    [
      'an excluded key',
      'create table plain2 (id integer primary key)',
      "'plain2', exclude => '{id}'",
      /primary key of public.plain2 cannot be excluded/,
    ],
    [
      'an unknown read-only column',
      'create table plain3 (id integer primary key)',
      "'plain3', read_only => '{nope}'",
      /plain3 has no column nope/,
    ],
    ['a table that is not there', 'select', "'missing'", /relation "missing" does not exist/],
  ])('attach refuses %s', async (_, setup, call, message) => {
    await capture.writer.query(setup);
    await expect(capture.writer.query(`select plank.attach(${call})`)).rejects.toThrow(message);
    expect(await capture.changes()).toEqual([]);
  });

  test('attaching again keeps the attachment, and takes new options', async () => {
    await capture.run(`create schema sales; create table sales.lines (id integer primary key, v text, w text);
      select plank.attach('sales.lines')`);
    const id = () =>
      admin(
        database.url,
        "select id, name, excluded::text from plank.attached where relation = 'sales.lines'::regclass",
      );
    const [first] = await id();
    expect(first).toMatchObject({ name: 'sales.lines', excluded: '{}' });
    await capture.run("select plank.attach('sales.lines'), plank.attach('sales.lines')");
    expect(await id()).toEqual([first]);
    expect(await capture.brief("insert into sales.lines values (1, 'a', 'b')")).toEqual([
      'I 1 {"id":1,"v":"a","w":"b"}',
    ]);
    await capture.run("select plank.attach('sales.lines', exclude => '{w}')");
    expect(await capture.brief("update sales.lines set w = 'c'")).toEqual(['U 1 {"id":1,"v":"a"} {"id":1,"v":"a"}']);
    expect(await id()).toEqual([{ ...first, excluded: '{3}' }]);
  });

  test('a detached table is not captured, and one that is attached again is', async () => {
    await capture.run(
      "create table come (id integer primary key); select plank.attach('come'); insert into come values (1)",
    );
    expect(await capture.brief("select plank.detach('come')")).toEqual(['S']);
    expect(await capture.brief('insert into come values (2); truncate come')).toEqual([]);
    expect(await admin(database.url, "select tgname from pg_trigger where tgrelid = 'come'::regclass")).toEqual([]);
    await expect(capture.writer.query("select plank.detach('come')")).rejects.toThrow(
      'plank: table public.come is not attached',
    );
    await capture.run("select plank.attach('come')");
    expect(await capture.brief('insert into come values (3)')).toEqual(['I 3 {"id":3}']);
  });
});

describe('images', () => {
  const role = `plank_app_${randomBytes(6).toString('hex')}`;
  const values = `'2024-02-29 23:59:59.123456+05:30', '0099-01-02', '1 year 2 mons -3 days 04:05:06.7', 0.1::float8 + 0.2, 1e-7, '\\xdeadbeef',
    12345.67, 1.10, '{"b": 1, "a": [1.0, null]}', '{"b" : 1}', array['2024-01-01'::timestamptz, null], 'Ünï "q" \\ 👍', '23:59:59.5+02', '2024-06-01 12:00',
    '[2024-01-01,2024-02-01)', 'NaN'`;
  const odd: [name: string, settings: string][] = [
    ['none', 'select'],
    ['Tokyo, German dates', "set timezone = 'Asia/Tokyo'; set datestyle = 'German, DMY'"],
    [
      'verbose intervals',
      "set intervalstyle = 'postgres_verbose'; set datestyle = 'SQL, MDY'; set timezone = 'America/St_Johns'",
    ],
    ['few digits', 'set extra_float_digits = -15; set bytea_output = escape'],
    ['SQL intervals', 'set intervalstyle = sql_standard; set extra_float_digits = 3; set xmlbinary = hex'],
    [
      'role settings',
      'set standard_conforming_strings = on; set default_transaction_isolation = serializable; set quote_all_identifiers = on',
    ],
    [
      'names that hide those of Postgres',
      `create schema if not exists evil;
       create or replace function evil.to_json(anyelement) returns json language sql as $$ select '"hijacked"'::json $$;
       create or replace function evil.pg_trigger_depth() returns integer language sql as $$ select 1 / 0 $$;
       create or replace function evil.pg_notify(text, text) returns void language sql as $$ select 1 / 0 $$;
       create or replace function evil.equal(text, text) returns boolean language sql as $$ select (1 / 0)::boolean $$;
       do $$ begin create operator evil.= (leftarg = text, rightarg = text, function = evil.equal); exception when duplicate_function then null; end $$;
       create temp table if not exists outbox (id bigint); create temp table if not exists plank_new (id bigint); create or replace temp view pg_class as select 1;
       set search_path = evil, pg_temp, pg_catalog`,
    ],
  ];

  beforeAll(async () => {
    await open();
    await capture.run(`create table kinds (id integer primary key, at timestamptz, day date, span interval, f float8, r real, raw bytea, cash money, n numeric(9,4),
        jb jsonb, j json, times timestamptz[], words text, tz timetz, ts timestamp, days daterange, nan numeric);
      create table secrets (id integer primary key, name text, hash text default 'very secret');
      select plank.attach('kinds'), plank.attach('secrets', exclude => '{hash}');
      create role ${role} login password 'app'; grant usage, create on schema public to ${role}; grant select, insert, update, delete, truncate on kinds, secrets to ${role};
      grant create, temporary on database ${database.name} to ${role}`);
  });

  afterAll(async () => {
    await capture.writer.query(`drop owned by ${role} cascade; drop role ${role}`);
    await close();
  });

  async function asWriter(use: (client: Client) => Promise<void>): Promise<void> {
    const client = await session(database.url, { user: role, password: 'app' });
    try {
      await use(client);
    } finally {
      await client.end();
    }
  }

  test.each(odd)(
    "an image is the same for a writer with %s, who has no right to Plank's tables",
    async (_, settings) => {
      await capture.run(`truncate kinds; insert into public.kinds values (1, ${values})`);
      const expected = (await capture.content('kinds')).get('1')!;
      await asWriter(async (client) => {
        await client.query(settings);
        await expect(client.query('select * from plank.outbox')).rejects.toThrow(/permission denied for table outbox/);
        const inserted = await capture.run('truncate public.kinds', client);
        expect(inserted.map((change) => change.action)).toEqual(['T']);
        // settings change how values are read, so they are written under the usual ones
        const [change] = await capture.run(
          `set datestyle = ISO; reset timezone; insert into public.kinds values (1, ${values})`,
          client,
        );
        expect(change!.new).toBe(expected);
        await client.query(settings);
        const [updated] = await capture.run('update public.kinds set words = words', client);
        expect(updated).toMatchObject({ old: expected, new: expected });
        const [deleted] = await capture.run('delete from public.kinds', client);
        expect(deleted).toMatchObject({ old: expected, key: '1' });
      });
    },
  );

  test("an image has the bytes of REST's answer", async () => {
    const [change] = await capture
      .run(`truncate kinds; insert into kinds values (2, ${values})`)
      .then((all) => all.slice(1));
    const pool = createPool(database.url, {
      applicationName: 'plank tests',
      statementTimeoutMs: 5_000,
      max: 1,
      onError: () => {},
    });
    try {
      const catalog = new Catalog(pool);
      await catalog.load();
      const { imageSql } = catalog.byName('kinds')!;
      const { rows } = await pool.query<{ image: string }>(`select (${imageSql})::text as image from kinds t`);
      expect(rows[0]!.image).toBe(change!.new);
    } finally {
      await pool.end();
    }
    expect(JSON.parse(change!.new!)).toMatchObject({
      at: '2024-02-29T18:29:59.123456+00:00',
      day: '0099-01-02',
      span: 'P1Y2M-3DT4H5M6.7S',
      f: 0.30000000000000004,
      raw: '\\xdeadbeef',
    });
  });

  test('an image has no excluded column, even after it was renamed and others were added', async () => {
    await asWriter(async (client) => {
      await capture.run(
        "insert into secrets (id, name) values (1, 'a'); update secrets set hash = 'changed secret', name = 'b'",
        client,
      );
    });
    await capture.run('alter table secrets rename column hash to digest; alter table secrets add column hash text');
    const changes = await capture.brief(
      "insert into secrets (id, name, digest, hash) values (2, 'c', 'new secret', 'open'); delete from secrets where id = 1",
    );
    expect(changes).toEqual(['I 2 {"id":2,"name":"c","hash":"open"}', 'D 1 {"id":1,"name":"b","hash":null}']);
    expect(await admin(database.url, "select * from plank.outbox o where o::text like '%secret%'")).toEqual([]);
  });
});
