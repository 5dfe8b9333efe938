// Capture uses the names of columns inside a generated function: whatever a table's columns are called, a write must not fail and the
// images must be right. The same holds when a column was dropped without event triggers.

import { randomBytes } from 'node:crypto';
import { describe, expect, test } from 'vitest';
import { admin } from '../../support/servers/admin.ts';
import { captured } from '../../support/stage/captured.ts';

// variables, aliases and columns of the generated function, and names that need quotes
const awkward = [
  'depth',
  'mark',
  'wrote',
  'found',
  'tg_op',
  'new',
  'old',
  'r',
  'i',
  'k',
  'image',
  'key',
  'absent',
  'o',
  'n',
];
const names = [...awkward, 'id', 'xid', 'select', 'Mixed Case', 'it"s', '%1$s'];

const capture = captured();

const quoted = (name: string) => `"${name.replaceAll('"', '""')}"`;

async function writeAll(table: string, change: string): Promise<string[]> {
  const actions: string[] = [];
  for (const sql of [
    `insert into ${table} select ${names.map((_, at) => `g * 100 + ${at}`).join(', ')} from generate_series(1, 3) g`,
    `update ${table} set ${change} = -1 where id = ${100 + names.indexOf('id')}`,
    `update ${table} set ${change} = -2`,
    `update ${table} set id = id + 1000 where id = ${100 + names.indexOf('id')}`,
    `delete from ${table}`,
  ])
    actions.push((await capture.run(sql)).map((found) => found.action).join(''));
  return actions;
}

describe('column names', () => {
  test.each(names.filter((name) => name !== 'id'))('writes go on with a key column called %s', async (name) => {
    const columns = names.map((each) => `${quoted(each)} integer${each === name ? ' primary key' : ''}`).join(', ');
    await capture.run(`create table named (${columns}); select plank.attach('named')`);
    expect(await writeAll('named', name === 'xid' ? 'depth' : 'xid')).toEqual(['III', 'U', 'UUU', 'U', 'DDD']);
    await capture.run('drop table named');
  });

  test('writes go on with all names in one key, and with an excluded column', async () => {
    const columns = names.map((each) => `${quoted(each)} integer`).join(', ');
    await capture.run(`
      create table wide (${columns}, primary key (${names.map(quoted).join(', ')}));
      create table partly (${columns}, secret text default 'hush', primary key (id, image));
      select plank.attach('wide'), plank.attach('partly', exclude => '{secret,key}')`);
    const moved = ['III', 'DI', 'DDDIII', 'DI', 'DDD'];
    expect(await writeAll('wide', 'depth')).toEqual(moved);
    expect(await writeAll('partly', 'depth')).toEqual(['III', 'U', 'UUU', 'DI', 'DDD']);
    const [change] = await capture.run(`insert into partly (id, image, depth) values (1, 2, 3)`);
    expect(Object.keys(JSON.parse(change!.new!))).toEqual(names.filter((name) => name !== 'key'));
  });

  test('a name runs no code with the rights of the role that migrated', async () => {
    const role = `owner_${randomBytes(6).toString('hex')}`;
    await admin(
      capture.url,
      `create role ${role}; create table theirs (id integer primary key); alter table theirs owner to ${role};
       select plank.attach('theirs')`,
    );
    try {
      for (const quote of ['$body$', '$f$', '$s$', "'", "\\'"])
        await admin(
          capture.url,
          `set role ${role}; set check_function_bodies = off;
           alter table theirs add column ${quoted(`${quote};alter role ${role} superuser;select ${quote}`)} integer`,
        );
      expect(await admin(capture.url, `select rolsuper::text from pg_roles where rolname = '${role}'`)).toEqual([
        { rolsuper: 'false' },
      ]);
      const found = await capture.run('insert into theirs values (1); update theirs set id = 2; delete from theirs');
      expect(found.map(({ action }) => action).join('')).toMatch(/^S*IDID$/);
    } finally {
      await admin(capture.url, `drop table theirs; drop role ${role}`);
    }
  });

  test('writes go on after a column was renamed or dropped without event triggers', async () => {
    await capture.run(`
      create table moving (a integer, b integer, c text, d text, primary key (a, b));
      select plank.attach('moving', exclude => '{d}');
      insert into moving values (1, 1, 'x', 'y')`);
    const { writer } = capture;
    const before = await writer.query('select last_value as id from plank.outbox_id_seq');
    await writer.query('alter event trigger plank_ddl disable');
    await writer.query('alter table moving drop column c; alter table moving rename b to z');
    await writer.query("update moving set d = 'n'; insert into moving values (2, 2, 'o'); delete from moving");
    const { rows } = await writer.query('select action, key, old, new from plank.outbox where id > $1 order by id', [
      before.rows[0].id,
    ]);
    expect(rows.map(({ action, key, old, new: now }) => [action, key, old ?? now].join(' '))).toEqual([
      'U {"a":1,"b":null} {"a":1,"b":null,"c":null}',
      'I {"a":2,"b":null} {"a":2,"b":null,"c":null}',
      'D {"a":1,"b":null} {"a":1,"b":null,"c":null}',
      'D {"a":2,"b":null} {"a":2,"b":null,"c":null}',
    ]);
    // once the table is attached again, the capture is as before
    await writer.query('alter event trigger plank_ddl enable');
    await capture.run("select plank.attach('moving', exclude => '{d}'); insert into moving values (3, 3, 'p')");
    expect(await capture.brief('delete from moving')).toEqual(['D {"a":3,"z":3} {"a":3,"z":3}']);
  });
});
