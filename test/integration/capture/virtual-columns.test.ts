// Virtual generated columns (PostgreSQL 18) are computed when they are read, and null in transition tables. Changes have the values of
// SELECT, and REST and snapshots the same bytes. (Capture compares each change with the rendering of plank.catalog.)

import { describe, expect, test } from 'vitest';
import { captured } from '../../support/stage/captured.ts';
import { Stage } from '../../support/stage/stage.ts';

interface Case {
  what: string;
  /** columns after `id integer primary key, a integer, b text` */
  columns: string;
  attach?: string;
  /** the image of the row (1, 2, 'x') */
  image: string;
}

const cases: Case[] = [
  { what: 'an integer', columns: 'v integer generated always as (a * 2)', image: '{"id":1,"a":2,"b":"x","v":4}' },
  {
    what: 'a bigint',
    columns: 'v bigint generated always as (a + 1)',
    image: '{"id":1,"a":2,"b":"x","v":3}',
  },
  {
    what: 'a numeric',
    columns: 'v numeric(6, 3) generated always as (a / 3.0)',
    image: '{"id":1,"a":2,"b":"x","v":0.667}',
  },
  {
    what: 'a float',
    columns: 'v real generated always as (a / 3.0::real)',
    image: '{"id":1,"a":2,"b":"x","v":0.6666667}',
  },
  {
    what: 'a text',
    columns: `v text generated always as (upper(b) || '"' || a)`,
    image: String.raw`{"id":1,"a":2,"b":"x","v":"X\"2"}`,
  },
  {
    what: 'a bytea',
    columns: `v bytea generated always as (decode(lpad(a::text, 2, '0'), 'hex'))`,
    image: String.raw`{"id":1,"a":2,"b":"x","v":"\\x02"}`,
  },
  {
    what: 'jsonb',
    columns: `c jsonb default '{"k":[2]}', v jsonb generated always as (c -> 'k')`,
    image: '{"id":1,"a":2,"b":"x","c":{"k": [2]},"v":[2]}',
  },
  {
    what: 'an array',
    columns: 'v integer[] generated always as (array[a, a])',
    image: '{"id":1,"a":2,"b":"x","v":[2,2]}',
  },
  {
    what: 'a timestamptz',
    columns: `at timestamptz default '2026-01-01 00:00:00+02', v timestamptz generated always as (at at time zone 'UTC' at time zone 'UTC')`,
    image: '{"id":1,"a":2,"b":"x","at":"2025-12-31T22:00:00+00:00","v":"2025-12-31T22:00:00+00:00"}',
  },
  {
    what: 'an interval',
    columns: `v interval generated always as (a * interval '1 day')`,
    image: '{"id":1,"a":2,"b":"x","v":"P2D"}',
  },
  { what: 'a null', columns: `v integer generated always as (nullif(a, 2))`, image: '{"id":1,"a":2,"b":"x","v":null}' },
  { what: 'a constant', columns: `v integer generated always as (7)`, image: '{"id":1,"a":2,"b":"x","v":7}' },
  {
    what: 'an expression that fails for this row',
    columns: 'v integer generated always as (1 / (a - 2))',
    image: '{"id":1,"a":2,"b":"x","v":null}',
  },
  {
    what: 'several columns, some of them stored',
    columns:
      'v integer generated always as (-a), s integer generated always as (a * a) stored, w text generated always as (b || b)',
    image: '{"id":1,"a":2,"b":"x","v":-2,"s":4,"w":"xx"}',
  },
  {
    what: "names of the capture's own",
    columns:
      'found integer default 3, "f1" integer default 4, bases integer default 5, p_column integer default 6, v integer generated always as (found + "f1" + bases + p_column)',
    image: '{"id":1,"a":2,"b":"x","found":3,"f1":4,"bases":5,"p_column":6,"v":18}',
  },
  {
    what: 'a quote in its name',
    columns: `"it's ""v""" integer generated always as (a)`,
    image: String.raw`{"id":1,"a":2,"b":"x","it's \"v\"":2}`,
  },
  {
    what: 'a collation',
    columns: `c text collate "C" default 'b', v boolean generated always as (c < 'B')`,
    image: '{"id":1,"a":2,"b":"x","c":"b","v":false}',
  },
  {
    what: 'computed from an excluded column',
    columns: `v integer generated always as (a * 2)`,
    attach: `exclude => '{a}'`,
    image: '{"id":1,"b":"x","v":4}',
  },
  {
    what: 'excluded itself',
    columns: `v integer generated always as (a * 2)`,
    attach: `exclude => '{v}'`,
    image: '{"id":1,"a":2,"b":"x"}',
  },
  {
    what: 'beside a dropped column',
    columns: `d integer, v integer generated always as (a * 2)`,
    attach: '',
    image: '{"id":1,"a":2,"b":"x","v":4}',
  },
]; // prettier-ignore

describe('capture', () => {
  const capture = captured();

  test.each(cases)('a change has the value of a virtual column: $what', async ({ columns, attach, image }) => {
    const drop = columns.startsWith('d ') ? 'alter table t drop column d;' : '';
    await capture.run(
      `create table t (id integer primary key, a integer, b text, ${columns}); ${drop} select plank.attach('t'${attach ? `, ${attach}` : ''})`,
    );
    expect(await capture.brief(`insert into t (id, a, b) values (1, 2, 'x')`)).toEqual([`I 1 ${image}`]);
    // old and new, several rows, a base column that changes, a key that changes; Capture compares each with the rows
    for (const sql of [
      `insert into t (id, a, b) select g, g, 'y' from generate_series(2, 4) g`,
      'update t set a = a + 1 where id = 1',
      `update t set a = a - 1, b = 'z'`,
      'update t set id = id + 10 where id > 2',
    ])
      await capture.run(sql);
    const gone = await capture.brief('delete from t where id = 1');
    expect(gone).toEqual([`D 1 ${image.replaceAll('"x', '"z').replaceAll('"X', '"Z').replace('zx', 'zz')}`]);
    await capture.run('drop table t');
  });

  test('a change has the virtual columns of partitions in other orders, and of altered ones', async () => {
    await capture.run(`
      create table parts (id integer, a integer, v integer generated always as (a * 2), primary key (id)) partition by range (id);
      create table low partition of parts for values from (0) to (10);
      create table high (v integer generated always as (a * 2), a integer, id integer not null);
      alter table parts attach partition high for values from (10) to (20);
      select plank.attach('parts')`);
    expect(await capture.brief('insert into parts (id, a) values (1, 1), (11, 2)')).toEqual([
      'I 1 {"id":1,"a":1,"v":2}',
      'I 11 {"id":11,"a":2,"v":4}',
    ]);
    expect(await capture.brief('update high set a = 3')).toEqual(['U 11 {"id":11,"a":2,"v":4} {"id":11,"a":3,"v":6}']);
    await capture.run('alter table parts rename a to base; alter table parts rename v to twice');
    expect(await capture.brief('update parts set base = 5 where id = 1')).toEqual([
      'U 1 {"id":1,"base":1,"twice":2} {"id":1,"base":5,"twice":10}',
    ]);
    await capture.run('alter table parts add w integer generated always as (base + id)');
    expect(await capture.brief('delete from parts where id = 1')).toEqual(['D 1 {"id":1,"base":5,"twice":10,"w":6}']);
    await capture.run(`alter table parts alter w set expression as (base * id)`);
    expect(await capture.brief('delete from parts')).toEqual(['D 11 {"id":11,"base":3,"twice":6,"w":33}']);
    await capture.run('alter table parts drop twice; alter table parts drop w');
    expect(await capture.brief('insert into parts values (1, 1)')).toEqual(['I 1 {"id":1,"base":1}']);
  });
});

describe('reads', () => {
  const stage = Stage.of(`
    create table sums (id integer primary key, a integer, v integer generated always as (12 / a), w numeric generated always as (a * 1.5));
    insert into sums values (1, 3), (2, 0), (3, 6);
    select plank.attach('sums')`);

  const get = async (path: string) => (await fetch(`${stage.embedded.url}/api/sums${path}`)).text();

  test('virtual columns are the same in REST, snapshots, filters and changes', async () => {
    const all = [
      { id: 1, a: 3, v: 4, w: 4.5 },
      { id: 2, a: 0, v: null, w: 0 },
      { id: 3, a: 6, v: 2, w: 9 },
    ];
    const rows = JSON.parse(await get('')) as unknown[];
    expect(rows).toEqual(all);
    expect(await get('/2')).toBe('{"id":2,"a":0,"v":null,"w":0.0}');
    for (const [where, ids] of [
      [{ v: { gt: 2 } }, [1]],
      [{ v: null }, [2]],
      [{ v: { in: [2, 4] } }, [1, 3]],
      [{ w: { lte: '4.5' }, not: { v: 2 } }, [1]],
    ] as const) {
      const expected = all.filter(({ id }) => (ids as readonly number[]).includes(id));
      expect(JSON.parse(await get(`?where=${encodeURIComponent(JSON.stringify(where))}`))).toEqual(expected);
      const peer = await stage.peer();
      await stage.subscribe(peer, { table: 'sums', where, columns: ['v'], snapshot: true });
      expect((await peer.reader.expect('rows')).rows).toEqual(expected.map(({ id, v }) => ({ id, v })));
    }
    const peer = await stage.peer();
    await stage.subscribe(peer, { table: 'sums', where: { v: { gt: 2 } } });
    await peer.reader.expect('live');
    const patched = await fetch(`${stage.embedded.url}/api/sums/3`, {
      method: 'PATCH',
      headers: { 'content-type': 'application/json' },
      body: '{"a":4}',
    });
    expect(await patched.text()).toBe('{"id":3,"a":4,"v":3,"w":6.0}');
    await stage.sql('update sums set a = 0 where id = 3');
    const effects = await peer.reader.changes(2);
    expect(effects.map(({ effect, id, data }) => [effect, id, data])).toEqual([
      ['add', 3, { id: 3, a: 4, v: 3, w: 6 }],
      ['remove', 3, undefined],
    ]);
  });
});
