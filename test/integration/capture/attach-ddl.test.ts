// I10: writes never fail after any DDL of an attached table, even without event triggers, as for a role that is no superuser.

import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import { admin } from '../../support/servers/admin.ts';
import { createDatabase, type TestDatabase } from '../../support/servers/servers.ts';
import { Capture } from '../../support/truth/capture.ts';

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

async function problems(): Promise<Record<string, string>[]> {
  return admin(database.url, 'select name, problem from plank.check() order by 1, 2');
}

describe.each([
  ['followed', true],
  ['not followed, without event triggers', false],
])('DDL %s', (_, followed) => {
  beforeAll(async () => {
    await open();
    if (!followed)
      await admin(
        database.url,
        'drop event trigger plank_ddl; drop event trigger plank_drop; drop event trigger plank_rewrite',
      );
  });
  afterAll(close);

  let number = 0;
  /** Attaches a table with two rows without `secret`, runs DDL and writes, then repairs the capture. */
  async function after(ddl: string, writes: string, options = "exclude => '{secret}'") {
    const name = `d${++number}`;
    const named = (sql: string) => sql.replaceAll('T', name);
    await capture.run(
      named(`create table T (id integer primary key, v text, secret text default 'hush');
      insert into T values (1, 'a'), (2, 'b'); select plank.attach('T', ${options})`),
    );
    const changes = await capture.run(named(ddl)).catch(() => []);
    // gateways get a change of the shape if they can see the difference
    expect(changes.some((change) => change.action === 'S')).toBe(followed && !ddl.includes('secret'));
    const written = await capture.run(
      named(writes) +
        (followed
          ? ''
          : named(
              "; select plank.attach('T', exclude => (select array(select attname::text from pg_attribute where attrelid = 'T'::regclass and attname like 'secret%')))",
            )),
    );
    expect(await admin(database.url, "select * from plank.outbox o where o::text like '%hush%'")).toEqual([]);
    return written
      .filter(({ action }) => action !== 'S' && action !== 'R')
      .map((change) => [change.action, change.key, change.old, change.new].filter((x) => x !== null).join(' '));
  }

  test('writes go on after a column is added', async () => {
    const changes = await after(
      'alter table T add column w integer default 7',
      "insert into T (id, v) values (3, 'c'); update T set w = 8 where id = 1",
    );
    expect(changes[0]).toBe(followed ? 'I 3 {"id":3,"v":"c","w":7}' : 'I 3 {"id":3,"v":"c"}');
    expect(changes).toHaveLength(2);
  });

  test('writes go on after a column is dropped', async () => {
    const changes = await after(
      'alter table T drop column v',
      'insert into T (id) values (3); update T set id = 4 where id = 1; delete from T where id = 2',
    );
    expect(changes[0]).toBe(followed ? 'I 3 {"id":3}' : 'I 3 {"id":3,"v":null}');
    expect(changes).toHaveLength(4);
  });

  test('writes go on after a column is renamed', async () => {
    const changes = await after('alter table T rename column v to w', "insert into T (id, w) values (3, 'c')");
    expect(changes).toEqual([followed ? 'I 3 {"id":3,"w":"c"}' : 'I 3 {"id":3,"v":null}']);
  });

  test('writes go on after an excluded column is renamed', async () => {
    const changes = await after(
      'alter table T rename column secret to secret2',
      "insert into T values (3, 'c', 'hush'); update T set secret2 = 'hush!'",
    );
    expect(changes[0]).toBe('I 3 {"id":3,"v":"c"}');
    expect(changes).toHaveLength(4);
  });

  test('writes go on after a column gets another type', async () => {
    const changes = await after(
      'alter table T alter column v type integer using 5',
      'insert into T values (3, 6); delete from T where id = 1',
    );
    expect(changes).toHaveLength(2);
  });

  test('writes go on after the key is renamed', async () => {
    const changes = await after(
      'alter table T rename column id to nr',
      "insert into T values (3, 'c'); update T set v = 'x'; delete from T where nr = 1",
    );
    expect(changes.length).toBeGreaterThanOrEqual(5);
    if (followed) expect(changes[0]).toBe('I 3 {"nr":3,"v":"c"}');
  });

  test.each([
    ['drops the primary key', 'id integer primary key', 'alter table T drop constraint T_pkey'],
    ['drops the column of the primary key', 'id integer primary key', 'alter table T drop column id'],
    [
      'drops one column of the primary key',
      'id integer default 1, k integer default 1, primary key (id, k)',
      'alter table T drop column k',
    ],
    ['drops the type of the primary key', 'id T_id primary key', 'drop domain T_id cascade'],
  ])('writes go on after DDL that %s', async (_, columns, ddl) => {
    const named = (sql: string) => sql.replaceAll('T', name);
    const name = `d${++number}`;
    await capture.run(
      named(`create domain T_id as integer; create table T (${columns}, v text); select plank.attach('T')`),
    );
    // (changes are not read meanwhile, as rows have no key)
    const insert = `insert into T ${ddl.includes('constraint') ? "(id, v) values (1, 'a')" : "(v) values ('a')"}`;
    await capture.writer.query(named(ddl));
    await capture.writer.query(named(`${insert}; update T set v = 'b'; delete from T`));
    const changes = await capture.run(named('drop table T'));
    expect(changes.map(({ action }) => action).join('')).toMatch(/I(U|DI)D/);
  });

  test('writes go on after the table is renamed', async () => {
    await capture.run("create table before (id integer primary key); select plank.attach('before')");
    const changes = await capture.run('alter table before rename to later');
    expect(changes.map((change) => change.action)).toEqual(followed ? ['S'] : []);
    expect((await capture.run('insert into later values (1); truncate later')).map((change) => change.action)).toEqual([
      'I',
      'T',
    ]);
    expect(await admin(database.url, "select name from plank.attached where relation = 'later'::regclass")).toEqual([
      { name: 'later' },
    ]);
    await capture.run(
      'create schema if not exists other; alter table later set schema other; insert into other.later values (2)',
    );
    await capture.run("select plank.attach('other.later')");
    expect(
      await admin(database.url, "select name from plank.attached where relation = 'other.later'::regclass"),
    ).toEqual([{ name: 'other.later' }]);
  });

  test('a dropped table leaves no attachment, or one that plank.check() finds', async () => {
    await capture.run("create table fleeting (id integer primary key); select plank.attach('fleeting')");
    const [{ id }] = (await admin(database.url, "select id from plank.attached where name = 'fleeting'")) as [
      { id: string },
    ];
    expect(
      (await capture.run('insert into fleeting values (1); drop table fleeting')).map((change) => change.action),
    ).toEqual(followed ? ['I', 'S'] : ['I']);
    const problem = {
      name: 'fleeting',
      problem: `the table was dropped; run: delete from plank.attached where id = ${id}`,
    };
    expect((await problems()).filter((each) => each.name === 'fleeting')).toEqual(followed ? [] : [problem]);
    // a new table of that name is another table
    await capture.run('create table fleeting (id integer primary key); insert into fleeting values (1)');
    await capture.run(`delete from plank.attached where id = ${id}`);
    await capture.run("select plank.attach('fleeting')");
    expect(await capture.brief('insert into fleeting values (2)')).toEqual(['I 2 {"id":2}']);
  });

  test('DDL that is rolled back changes nothing of the capture', async () => {
    await capture.run("create table kept (id integer primary key, v text); select plank.attach('kept')");
    expect(
      await capture.brief(
        "begin; alter table kept add column w text; alter table kept rename to lost; rollback; insert into kept values (1, 'a')",
      ),
    ).toEqual(['I 1 {"id":1,"v":"a"}']);
    expect(await capture.brief('begin; drop table kept; rollback; delete from kept')).toEqual(['D 1 {"id":1,"v":"a"}']);
  });
});
