// Owns what plank.attach and plank.detach do while others use the table. What must stay true: they wait five seconds at most, say whom
// they waited for, change nothing then, and neither they nor ALTER TABLE ever meet a deadlock.

import { setTimeout as sleep } from 'node:timers/promises';
import type { Client } from 'pg';
import { afterAll, beforeAll, beforeEach, describe, expect, test } from 'vitest';
import { admin } from '../../support/servers/admin.ts';
import { createDatabase, type TestDatabase } from '../../support/servers/servers.ts';
import { session } from '../../support/truth/capture.ts';

let database: TestDatabase;
let owner: Client;
let other: Client;

beforeAll(async () => {
  database = await createDatabase();
  owner = await session(database.url);
  other = await session(database.url);
});
afterAll(async () => {
  await owner?.end();
  await other?.end();
  await database?.drop();
});

const pidOf = async (client: Client) => (await client.query('select pg_backend_pid() as pid')).rows[0].pid as number;
const attached = () => admin(database.url, 'select name, excluded::text, shape from plank.attached order by name');

describe('a table that another transaction has written to', () => {
  beforeEach(async () => {
    await owner.query(`drop table if exists new, parted, plain cascade; delete from plank.attachments;
      create table new (id integer primary key, v text);
      create table plain (id integer primary key, v text, w text); select plank.attach('plain', exclude => '{w}');
      create table parted (id integer primary key, v text) partition by range (id);
      create table parted_1 partition of parted for values from (0) to (10)`);
  });

  test.each([
    ['a first attach', 'new', "select plank.attach('new')"],
    ['an attach that excludes more', 'plain', "select plank.attach('plain', exclude => '{v,w}')"],
    ['a first attach of a partitioned table', 'parted_1', "select plank.attach('parted')"],
    ['an attach that puts a trigger back', 'plain', "drop trigger plank_update on plain; select plank.attach('plain')"],
    ['a detach', 'plain', "select plank.detach('plain')"],
  ])('%s gives up while another transaction holds the table, and names its session', async (_, table, statement) => {
    const statements = statement.split('; ');
    for (const first of statements.slice(0, -1)) await owner.query(first);
    const before = await attached();
    await other.query(`begin; insert into ${table} (id) values (1)`);
    const pid = await pidOf(other);
    const started = performance.now();
    await owner.query("set lock_timeout = '300ms'");
    await expect(owner.query(statements.at(-1)!)).rejects.toMatchObject({
      code: '55P03',
      hint: expect.stringContaining(`${pid}`),
    });
    expect(performance.now() - started).toBeLessThan(4_000);
    expect((await owner.query('show lock_timeout')).rows).toEqual([{ lock_timeout: '300ms' }]);
    await owner.query('reset lock_timeout');
    await other.query('rollback');
    expect(await attached()).toEqual(before);
    await owner.query(statements.at(-1)!);
  });

  test.each([
    ['an attach', "select plank.attach('new')", false],
    ['a detach', "select plank.detach('plain')", true],
  ])('%s names a session that only reads exactly if it waits for readers', async (_, statement, waits) => {
    const reader = await session(database.url);
    try {
      await reader.query('begin; select from new; select from plain');
      await other.query('begin; insert into new (id) values (1); insert into plain (id) values (1)');
      await owner.query("set lock_timeout = '300ms'");
      const refusal: Error & { hint?: string } = await owner.query(statement).catch((error) => error);
      const named = new Set(refusal.hint!.match(/\d+/g)!.map(Number));
      expect(named).toEqual(new Set([await pidOf(other), ...(waits ? [await pidOf(reader)] : [])]));
    } finally {
      await owner.query('reset lock_timeout');
      await other.query('rollback');
      await reader.end();
    }
  });

  test('an attach waits five seconds if the session has no lock_timeout', async () => {
    await other.query('begin; insert into new (id) values (1)');
    const started = performance.now();
    await expect(owner.query("select plank.attach('new')")).rejects.toMatchObject({ code: '55P03' });
    expect(performance.now() - started).toBeGreaterThan(4_500);
    await other.query('rollback');
  });

  test.each([
    ['that changes nothing', "select plank.attach('plain')"],
    ['that excludes less', "select plank.attach('plain', exclude => '{}')"],
    ['that sets what is read-only', "select plank.attach('plain', read_only => '{v}')"],
  ])('an attach %s does not wait for writers', async (_, statement) => {
    await other.query('begin; insert into plain (id) values (1)');
    await owner.query(statement);
    await other.query('rollback');
  });
});

test('an attach and an ALTER TABLE at the same time both succeed', async () => {
  await owner.query('drop table if exists met cascade; create table met (id integer primary key, v text, w text)');
  for (let round = 0; round < 12; round++) {
    const attach = owner.query(`select plank.attach('met', exclude => '${round % 2 === 0 ? '{w}' : '{v}'}')`);
    if (round % 3 > 0) await sleep(round % 3);
    const alter = other.query(`alter table met add column c${round} text`);
    await Promise.all([attach, alter]);
    expect(await admin(database.url, "select problem from plank.check() where name = 'met'")).toEqual([]);
  }
});

describe('a generated column that is computed from an excluded one', () => {
  const noticed = (columns: string) =>
    `plank: generated columns of public.hidden are sent to clients, and are computed from excluded columns: ${columns}`;
  const notices: string[] = [];
  beforeAll(() => owner.on('notice', ({ message }) => notices.push(message ?? '')));
  beforeEach(async () => {
    await owner.query(`drop table if exists hidden cascade; delete from plank.attachments;
      create table hidden (id integer primary key, a text, b text, c text generated always as (a || '!') stored,
        d text generated always as (b || coalesce(a, '')) stored)`);
    notices.length = 0;
  });

  test.each([
    ['a', 'c, d'],
    ['b', 'd'],
    ['a,c', 'd'],
    ['a,c,d', ''],
    ['c', ''],
  ])('a notice names the generated columns when {%s} is excluded: %s', async (excluded, shown) => {
    await owner.query(`select plank.attach('hidden', exclude => '{${excluded}}')`);
    expect(notices).toEqual(shown === '' ? [] : [noticed(shown)]);
  });

  test('a notice names a generated column of an excluded one that is added later', async () => {
    await owner.query("select plank.attach('hidden', exclude => '{a,c,d}')");
    await owner.query('alter table hidden add column e text generated always as (upper(a)) stored');
    expect(notices).toEqual([noticed('e')]);
  });
});

test('plank.check() names the grant of an owner that may not read its own table', async () => {
  await owner.query(`drop role if exists lock_owner; create role lock_owner; create table owned (id integer primary key);
    alter table owned owner to lock_owner; grant usage, create on schema public to lock_owner; select plank.attach('owned')`);
  try {
    await owner.query('revoke all on owned from lock_owner');
    const [found] = await admin(database.url, "select problem from plank.check() where name = 'owned'");
    expect(found?.problem).toMatch(/; run: grant select on (public\.)?owned to lock_owner$/);
    await owner.query(String(found!.problem).split('; run: ')[1]!);
    expect(await admin(database.url, "select problem from plank.check() where name = 'owned'")).toEqual([]);
  } finally {
    await owner.query('drop table owned; drop owned by lock_owner; drop role lock_owner');
  }
});
