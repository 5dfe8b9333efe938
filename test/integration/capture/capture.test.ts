// The changes of each kind of statement, in the right order. Every run is also checked as a whole (test/support/truth/capture.ts): the
// changes fit together, and lead to the tables' rows.

import { beforeAll, beforeEach, describe, expect, test } from 'vitest';
import { captured } from '../../support/stage/captured.ts';

const capture = captured(`
    create table t (id integer primary key, v text);
    create table source (id integer, v text);
    select plank.attach('t')`);

beforeEach(async () => {
  await capture.run("truncate t, source; insert into t values (1, 'a'), (2, 'b'), (3, 'c')");
});

const image = (id: number, v: string | null) => JSON.stringify({ id, v });

describe('statements', () => {
  test('INSERT, UPDATE, DELETE and TRUNCATE are captured with both images', async () => {
    expect(await capture.brief("insert into t values (4, 'd'), (5, null)")).toEqual([
      `I 4 ${image(4, 'd')}`,
      `I 5 ${image(5, null)}`,
    ]);
    expect(await capture.brief("update t set v = 'e' where id = 5")).toEqual([
      `U 5 ${image(5, null)} ${image(5, 'e')}`,
    ]);
    expect(await capture.brief('delete from t where id = 5')).toEqual([`D 5 ${image(5, 'e')}`]);
    expect(await capture.brief('truncate t')).toEqual(['T']);
  });

  test('an update that changes nothing is captured, and a statement without rows is not', async () => {
    expect(await capture.brief('update t set v = v where id = 1')).toEqual([`U 1 ${image(1, 'a')} ${image(1, 'a')}`]);
    expect(
      await capture.brief(`update t set v = 'x' where id = 99; delete from t where id = 99;
        insert into t select * from source; insert into t values (1, 'x') on conflict do nothing`),
    ).toEqual([]);
  });

  test('ON CONFLICT is captured for inserted and updated rows only', async () => {
    expect(
      await capture.brief(`insert into t values (1, 'x'), (4, 'y'), (3, 'z')
        on conflict (id) do update set v = excluded.v where t.id <> 3`),
    ).toEqual([`U 1 ${image(1, 'a')} ${image(1, 'x')}`, `I 4 ${image(4, 'y')}`]);
    expect(await capture.brief("insert into t values (1, 'q'), (5, 'q') on conflict do nothing")).toEqual([
      `I 5 ${image(5, 'q')}`,
    ]);
  });

  test('ON CONFLICT is captured when it moves a row out of the way of the next', async () => {
    const changes = await capture.brief(
      "insert into t values (1, 'x'), (1, 'y') on conflict (id) do update set id = t.id + 100",
    );
    expect(changes).toEqual([`D 1 ${image(1, 'a')}`, `I 101 ${image(101, 'a')}`, `I 1 ${image(1, 'y')}`]);
  });

  test('COPY is captured', async () => {
    expect(await capture.brief(`copy t from program 'printf "7\\tseven\\n8\\teight\\n"'`)).toEqual([
      `I 7 ${image(7, 'seven')}`,
      `I 8 ${image(8, 'eight')}`,
    ]);
  });

  test('UPDATE … FROM and DELETE … USING are captured once a row, however often the source has it', async () => {
    await capture.writer.query("insert into source values (1, 'p'), (1, 'p'), (2, 'q'), (9, 'r')");
    expect(await capture.brief('update t set v = s.v from source s where s.id = t.id')).toEqual([
      `U 1 ${image(1, 'a')} ${image(1, 'p')}`,
      `U 2 ${image(2, 'b')} ${image(2, 'q')}`,
    ]);
    expect(await capture.brief('delete from t using source s where s.id = t.id and t.id = 1')).toEqual([
      `D 1 ${image(1, 'p')}`,
    ]);
  });

  test('data-modifying CTEs are captured', async () => {
    const changes = await capture.brief(`with gone as (delete from t where id < 3 returning *),
        more as (insert into t values (10, 'n') returning id),
        changed as (update t set v = 'u' where id = 3 returning id)
      insert into t select id, v || v from gone`);
    expect([...changes].sort()).toEqual([
      `D 1 ${image(1, 'a')}`,
      `D 2 ${image(2, 'b')}`,
      `I 1 ${image(1, 'aa')}`,
      `I 10 ${image(10, 'n')}`,
      `I 2 ${image(2, 'bb')}`,
      `U 3 ${image(3, 'c')} ${image(3, 'u')}`,
    ]);
  });

  test('changes that remain after savepoints were rolled back are captured in one transaction', async () => {
    const changes =
      await capture.run(`begin; insert into t values (4, 'd'); savepoint a; insert into t values (5, 'no');
      savepoint b; update t set v = 'no'; rollback to a; update t set v = 'yes' where id = 4; savepoint c;
      delete from t where id = 1; release c; savepoint d; delete from t; rollback to d; commit`);
    expect(changes.map((change) => change.action + change.key)).toEqual(['I4', 'U4', 'D1']);
    expect(new Set(changes.map((change) => change.xid)).size).toBe(1);
  });

  test('a transaction that rolls back or fails is not captured', async () => {
    expect(await capture.brief("begin; insert into t values (4, 'd'); truncate t; rollback")).toEqual([]);
    await expect(capture.writer.query("insert into t values (5, 'e'); insert into t values (1, 'x')")).rejects.toThrow(
      /duplicate key/,
    );
    expect(await capture.changes()).toEqual([]);
  });
});

describe.each([
  ['on the key', 'n.id = t.id', "(1, 'x'), (2, null), (9, 'new')"],
  ['on another column', 'n.v = t.v', "(11, 'a'), (null, 'b'), (9, 'new')"],
])('MERGE %s', (_, condition, values) => {
  test('every branch of MERGE %s is captured', async () => {
    const changes = await capture.brief(`merge into t using (values ${values}) n(id, v) on ${condition}
      when matched and (n.v is null or n.id is null) then delete
      when matched then update set v = 'merged'
      when not matched then insert values (n.id, n.v)`);
    expect([...changes].sort()).toEqual([
      `D 2 ${image(2, 'b')}`,
      `I 9 ${image(9, 'new')}`,
      `U 1 ${image(1, 'a')} ${image(1, 'merged')}`,
    ]);
  });
});

describe('one statement that frees a key and uses it again', () => {
  test.each([
    ['deletes and inserts', "(1, 'a', 0), (1, 'z', 0)"],
    ['moves and inserts', "(50, 'a', 1), (1, 'z', 0)"],
    ['deletes and moves', "(null, 'a', 0), (1, 'b', 1)"],
  ])('a MERGE that %s is captured', async (_, values) => {
    await capture.run(`merge into t using (values ${values}) n(id, v, move) on n.v = t.v
      when matched and n.move = 1 then update set id = n.id
      when matched then delete
      when not matched then insert values (n.id, n.v)`);
  });

  test('a MERGE that deletes a row and inserts it again is captured', async () => {
    expect(
      await capture.brief(`merge into t using (values ('a'), ('gone')) n(v) on n.v = t.v
        when matched then delete when not matched then insert values (1, 'a')`),
    ).toEqual([`D 1 ${image(1, 'a')}`, `I 1 ${image(1, 'a')}`]);
  });

  test('CTEs that move a row and insert another under its key are captured', async () => {
    await capture.run(
      "with moved as (update t set id = 20 where id = 3 returning *) insert into t select 3, 'other' from moved",
    );
  });
});

describe('keys', () => {
  test('a changed key is a DELETE, then an INSERT', async () => {
    expect(await capture.brief('update t set id = 9 where id = 2')).toEqual([
      `D 2 ${image(2, 'b')}`,
      `I 9 ${image(9, 'b')}`,
    ]);
  });

  test('shifted and swapped keys of many rows are captured', async () => {
    await capture.run(`create table shifted (id integer primary key deferrable, v integer);
      insert into shifted select g, g from generate_series(1, 500) g; select plank.attach('shifted')`);
    await capture.run('update shifted set id = id + 1');
    await capture.run('update shifted set id = id - 1');
    await capture.run('update shifted set id = 501 - id');
    expect(await capture.brief('update shifted set id = 3 - id where id in (1, 2)')).toHaveLength(2);
    await capture.run(
      'begin; update shifted set id = id + 7; delete from shifted where id % 2 = 0; update shifted set id = id - 3; commit',
    );
  });

  test('composite keys stay apart, and can change', async () => {
    await capture.run(
      `create table pairs (b text, v integer, a integer, primary key (a, b)); select plank.attach('pairs')`,
    );
    expect(await capture.brief("insert into pairs values ('x', 0, 1), ('y', 0, 1), ('x', 0, 2)")).toEqual([
      'I {"a":1,"b":"x"} {"b":"x","v":0,"a":1}',
      'I {"a":1,"b":"y"} {"b":"y","v":0,"a":1}',
      'I {"a":2,"b":"x"} {"b":"x","v":0,"a":2}',
    ]);
    expect(
      await capture.brief("update pairs set a = 3 where b = 'x' and a = 1; update pairs set v = 1 where a = 1"),
    ).toEqual([
      'D {"a":1,"b":"x"} {"b":"x","v":0,"a":1}',
      'I {"a":3,"b":"x"} {"b":"x","v":0,"a":3}',
      'U {"a":1,"b":"y"} {"b":"y","v":0,"a":1} {"b":"y","v":1,"a":1}',
    ]);
  });

  test.each([
    'plain',
    `quo"te's`,
    'back\\slash',
    'tab\tnew\nline',
    'žluťoučký',
    '日本',
    '👩‍👩‍👧‍👦',
    '',
    ' ',
    '{"a":1}',
    '\u2028',
  ])('the key %j is captured exactly', async (key) => {
    await capture.run(`create table if not exists words (word text primary key, "v ""x""" text);
        select plank.attach('words') where not exists (select from plank.attached where name = 'words')`);
    const literal = capture.writer.escapeLiteral(key);
    const changes =
      await capture.run(`insert into words values (${literal}, ${literal}); update words set "v ""x""" = 'new' where word = ${literal};
        delete from words where word = ${literal}`);
    expect(changes.map((change) => change.action)).toEqual(['I', 'U', 'D']);
    for (const change of changes) expect(JSON.parse(change.key!)).toBe(key);
    expect(JSON.parse(changes[0]!.new!)).toEqual({ word: key, 'v "x"': key });
  });

  test('a numeric key that is written differently is another key', async () => {
    await capture.run(`create table amounts (id numeric primary key, v integer); select plank.attach('amounts')`);
    await capture.run('insert into amounts values (1.0, 1), (2.50, 2)');
    // equal numbers in other digits: clients, which compare the key's text, see another row
    expect(await capture.brief('update amounts set id = 1.00 where id = 1')).toEqual([
      'D 1.0 {"id":1.0,"v":1}',
      'I 1.00 {"id":1.00,"v":1}',
    ]);
  });
});

describe('cascades', () => {
  beforeAll(async () => {
    await capture.run(`create table parents (id integer primary key);
      create table children (id integer primary key, parent integer references parents on delete cascade on update cascade);
      create table grandchildren (id integer primary key, child integer references children on delete set null on update cascade);
      select plank.attach('parents'), plank.attach('children'), plank.attach('grandchildren')`);
  });

  beforeEach(async () => {
    await capture.run(`truncate parents, children, grandchildren cascade; insert into parents values (1), (2), (3);
      insert into children values (10, 1), (11, 1), (20, 2); insert into grandchildren values (100, 10), (200, 20)`);
  });

  test('ON DELETE CASCADE and SET NULL are captured', async () => {
    const changes = await capture.run('delete from parents where id < 3');
    expect(changes.map((change) => `${change.table} ${change.action} ${change.key}`).sort()).toEqual([
      'children D 10',
      'children D 11',
      'children D 20',
      'grandchildren U 100',
      'grandchildren U 200',
      'parents D 1',
      'parents D 2',
    ]);
  });

  test('ON UPDATE CASCADE is captured through keys', async () => {
    await capture.run('update parents set id = id + 100');
    const changes = await capture.run('update children set id = id + 1000');
    expect(changes.filter((change) => change.table === 'grandchildren')).toHaveLength(2);
  });

  test('a row that two cascades of one statement change is captured', async () => {
    await capture.run(`create table notes (id integer primary key, author integer references parents on delete set null on update cascade,
        editor integer references parents on delete set null on update cascade);
      insert into notes values (1, 1, 1), (2, 1, 2), (3, 2, 1), (4, 3, 3); select plank.attach('notes')`);
    await capture.run('update parents set id = id + 10');
    await capture.run('delete from parents where id in (11, 12)');
    await capture.run('delete from parents');
  });

  test('a tree that refers to itself is captured', async () => {
    await capture.run(`create table tree (id integer primary key, up integer references tree on delete cascade on update cascade);
      insert into tree values (1, null), (2, 1), (3, 2), (4, 2), (5, 1); select plank.attach('tree')`);
    await capture.run('update tree set id = id + 100');
    await capture.run('delete from tree where id = 102');
    await capture.run('delete from tree');
  });

  test.each([
    'first integer references parents on delete set null, second integer references parents on delete cascade',
    'second integer references parents on delete cascade, first integer references parents on delete set null',
  ])('a row that one cascade changes and another deletes is captured: %s', async (columns) => {
    await capture.run(
      `drop table if exists links; create table links (id integer primary key, ${columns}); select plank.attach('links');`,
    );
    await capture.run(
      'insert into links (id, first, second) values (1, 1, 2), (2, 2, 1), (3, 1, 1), (4, 1, 3), (5, 3, 1)',
    );
    await capture.run('delete from parents where id < 3');
  });
});

describe('partitions', () => {
  beforeAll(async () => {
    await capture.run(`create table parts (id integer, at integer, v text, primary key (id, at)) partition by range (at);
      create table part_1 partition of parts for values from (0) to (10);
      create table part_2 (v text, gone integer, at integer not null, id integer not null, primary key (id, at));
      alter table part_2 drop column gone;
      alter table parts attach partition part_2 for values from (10) to (20);
      select plank.attach('parts')`);
  });

  beforeEach(async () => {
    await capture.run("truncate parts; insert into parts values (1, 1, 'a'), (2, 2, 'b'), (11, 11, 'c')");
  });

  test('statements on the parent are captured', async () => {
    expect(await capture.brief("insert into parts values (3, 3, 'x'), (13, 13, 'y')")).toEqual([
      'I {"id":3,"at":3} {"id":3,"at":3,"v":"x"}',
      'I {"id":13,"at":13} {"id":13,"at":13,"v":"y"}',
    ]);
    expect(await capture.run("update parts set v = 'n' where id in (1, 11)")).toHaveLength(2);
    expect(await capture.run('delete from parts')).toHaveLength(5);
  });

  test("statements on a partition are captured, with the columns in the parent's order", async () => {
    expect(await capture.brief("insert into part_2 (id, at, v) values (12, 12, 'x')")).toEqual([
      'I {"id":12,"at":12} {"id":12,"at":12,"v":"x"}',
    ]);
    expect(await capture.run("update part_2 set v = 'n'")).toHaveLength(2);
    expect(await capture.run('delete from part_1')).toHaveLength(2);
  });

  test('a row that an update moves to another partition is captured', async () => {
    expect(await capture.brief('update parts set at = 15 where id = 1')).toEqual([
      'D {"id":1,"at":1} {"id":1,"at":1,"v":"a"}',
      'I {"id":1,"at":15} {"id":1,"at":15,"v":"a"}',
    ]);
    await capture.run('update parts set at = case when at < 10 then at + 10 else at - 10 end');
  });

  test('a partition that is attached or created later is captured, and its TRUNCATE is a change of rows', async () => {
    await capture.run(`create table part_3 partition of parts for values from (20) to (30);
      create table part_4 (at integer not null, id integer not null, v text, primary key (id, at));
      insert into part_4 values (30, 30, 'before'); alter table parts attach partition part_4 for values from (30) to (40)`);
    expect(await capture.run("insert into parts values (21, 21, 'x'), (31, 31, 'y')")).toHaveLength(2);
    expect(await capture.run("update part_4 set v = 'z'; update part_3 set v = 'z'")).toHaveLength(3);
    expect(await capture.brief('truncate part_4')).toEqual(['R']);
    expect(await capture.brief('truncate parts')).toEqual(['T']);
    await capture.run('alter table parts detach partition part_4');
    expect(await capture.run("insert into part_4 values (35, 35, 'alone')")).toEqual([]);
    expect(await capture.run("insert into parts values (22, 22, 'still')")).toHaveLength(1);
    expect(await capture.brief('drop table part_3')).toEqual(['R']);
  });
});
