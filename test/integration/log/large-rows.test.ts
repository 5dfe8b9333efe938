// Rows above the bound: a write succeeds, its change has the key and `truncated`, and every way to read leaves out the same columns. The
// bound is small here; test/fault/large.test.ts has rows of hundreds of megabytes. (Capture compares each image with the one before,
// and with the rows.)

import { describe, expect, test } from 'vitest';
import { createPlank, isTruncated } from '#client/plank-client.ts';
import { admin } from '../../support/servers/admin.ts';
import { captured } from '../../support/stage/captured.ts';
import { overEvents, overWebSocket } from '../../support/stage/frames.ts';
import { Stage } from '../../support/stage/stage.ts';
import { until } from '../../support/wait.ts';

const bound = 65_536;

interface Case {
  what: string;
  type: string;
  /** SQL */
  value: string;
  /** SQL of a small value */
  small: string;
  isLarge: boolean;
}

const cases: Case[] = [
  { what: 'text just below', type: 'text', value: `repeat('x', ${bound - 200})`, small: `'x'`, isLarge: false },
  { what: 'text above', type: 'text', value: `repeat('x', ${bound + 1})`, small: `'x'`, isLarge: true },
  {
    what: 'text that escapes make large',
    type: 'text',
    value: String.raw`repeat(E'\x01', ${bound / 4})`,
    small: `'"'`,
    isLarge: true,
  },
  {
    what: 'text full of quotes, below',
    type: 'text',
    value: `repeat('"', ${bound / 4})`,
    small: `'"'`,
    isLarge: false,
  },
  { what: 'varchar', type: 'varchar', value: `repeat('é', ${bound})`, small: `'é'`, isLarge: true },
  { what: 'char(n)', type: 'char(70000)', value: `'x'`, small: 'null', isLarge: true },
  { what: 'a domain', type: 'lengthy', value: `repeat('x', ${bound + 1})`, small: `'x'`, isLarge: true },
  {
    what: 'bytea, as hex',
    type: 'bytea',
    value: `decode(repeat('ab', ${bound / 2}), 'hex')`,
    small: String.raw`'\x00'`,
    isLarge: true,
  },
  {
    what: 'jsonb that compresses',
    type: 'jsonb',
    value: `jsonb_build_object('k', repeat('a', ${40 * bound}))`,
    small: `'{}'`,
    isLarge: true,
  },
  {
    what: 'jsonb of small numbers, below',
    type: 'jsonb',
    value: `(select jsonb_agg(1) from generate_series(1, 20000))`,
    small: `'[]'`,
    isLarge: false,
  },
  { what: 'json', type: 'json', value: `json_build_array(repeat('a', ${bound}))`, small: `'1'`, isLarge: true },
  { what: 'text[]', type: 'text[]', value: `array_fill(repeat('a', 1000), array[70])`, small: `'{}'`, isLarge: true },
  { what: 'integer[]', type: 'integer[]', value: 'array_fill(1000000, array[10000])', small: `'{1}'`, isLarge: true },
  {
    what: 'numeric[] of huge numbers',
    type: 'numeric[]',
    value: `array_fill('1e10000'::numeric, array[50])`,
    small: `'{1}'`,
    isLarge: true,
  },
  {
    what: 'numeric[] that compresses',
    type: 'numeric[]',
    value: `array_fill('1e4000'::numeric, array[300])`,
    small: `'{1}'`,
    isLarge: true,
  },
  {
    what: 'jsonb of huge numbers that compresses',
    type: 'jsonb',
    value: `(select jsonb_agg('1e4000'::jsonb) from generate_series(1, 300))`,
    small: `'{}'`,
    isLarge: true,
  },
  { what: 'a composite', type: 'pair', value: `row(1, repeat('x', ${bound}))::pair`, small: `'(1,a)'`, isLarge: true },
  {
    what: 'tsvector',
    type: 'tsvector',
    value: `(select string_agg('word' || n, ' ') from generate_series(1, 9000) n)::tsvector`,
    small: `'a'`,
    isLarge: true,
  },
  { what: 'xml', type: 'text', value: `'<x>' || repeat('y', ${bound}) || '</x>'`, small: `'<x/>'`, isLarge: true },
  {
    what: 'a virtual column',
    type: `text generated always as (repeat(n::text, ${bound}))`,
    value: '',
    small: '',
    isLarge: true,
  },
  {
    what: 'a column that a function computes from another',
    type: `text default repeat('z', 2), w text generated always as (repeat(v, 40000))`,
    value: `'zz'`,
    small: `''`,
    isLarge: true,
  },
]; // prettier-ignore

describe('capture', () => {
  const capture = captured(
    `create domain lengthy as text; create type pair as (a integer, b text); select plank.configure(${bound})`,
  );

  test.each(cases)('a large row is captured with its key: $what', async ({ type, value, small, isLarge }) => {
    await capture.run(`create table big (id integer primary key, n integer, v ${type}); select plank.attach('big')`);
    const large = isLarge ? [' '] : ['{'];
    const insert = value === '' ? 'insert into big values (1, 1)' : `insert into big values (1, 1, ${value})`;
    expect((await capture.run(insert)).map((change) => change.new![0])).toEqual(large);
    // changes another column, several rows, the large value to a small one and back, the key; deletes
    const [update] = await capture.run('update big set n = n + 1 where id = 1');
    expect([update!.action, update!.old![0], update!.new![0]]).toEqual(['U', ...large, ...large]);
    expect(update!.new!.length).toBeLessThanOrEqual(bound);
    if (isLarge) expect(Object.keys(JSON.parse(update!.new!) as object).slice(0, 2)).toEqual(['id', 'n']);
    else
      expect(await admin(capture.url, 'select row_to_json(b)::text as image from big b')).toEqual([
        { image: update!.new },
      ]);
    await capture.run(`insert into big (id, n) values (2, 0), (3, 0); update big set n = n + 1`);
    if (value !== '') {
      const [shrunk] = await capture.run(`update big set v = ${small} where id = 1`);
      expect([shrunk!.old![0], shrunk!.new![0]]).toEqual([...large, '{']);
      await capture.run(`begin; update big set v = ${value} where id < 3; update big set n = 7; commit`);
    }
    await capture.run(`insert into big (id, n) select g, g from generate_series(10, 12) g`);
    expect((await capture.run('update big set id = 100 where id = 1')).map(({ action }) => action)).toEqual(['D', 'I']);
    expect((await capture.run('delete from big')).map(({ action }) => action).join('')).toMatch(/^D+$/);
    await capture.run('drop table big');
  });

  test('a row that only all columns together make large is captured with its key', async () => {
    const columns = Array.from({ length: 30 }, (_, n) => `c${n} text default repeat('x', 4000)`);
    await capture.run(
      `create table wide (id text, k integer, ${columns.join(', ')}, primary key (id, k)); select plank.attach('wide')`,
    );
    const [made] = await capture.run(`insert into wide values ('a"b', 7)`);
    // each column is small by itself: the image is the key alone
    expect(made!.new).toBe(String.raw` {"id":"a\"b","k":7}`);
    await capture.run(`update wide set c1 = 'y'; update wide set k = 8; delete from wide`);
    // excluded columns do not count
    await capture.run(
      `select plank.attach('wide', exclude => '{${columns
        .map((_, n) => `c${n}`)
        .slice(0, 29)
        .join(',')}}')`,
    );
    const [less] = await capture.run(`insert into wide values ('c', 7)`);
    expect(less!.new![0]).toBe('{');
  });

  test('large rows that nested triggers change, or in partitions, are captured with their keys', async () => {
    await capture.run(`
      create table parts (id integer primary key, n integer, v text) partition by range (id);
      create table low partition of parts for values from (0) to (10);
      create table high (v text, n integer, id integer not null);
      alter table parts attach partition high for values from (10) to (20);
      create function again() returns trigger language plpgsql as $$ begin
        update parts set n = n + 1 where id = new.id and n < 5; return null; end $$;
      create trigger again after insert or update on parts for each row execute function again();
      select plank.attach('parts')`);
    await capture.run(
      `insert into parts values (1, 1, repeat('x', 100000)), (2, 2, 'y'), (11, 1, repeat('x', 100000))`,
    );
    await capture.run('update parts set n = 2');
    await capture.run('update parts set id = 12 where id = 1');
    await capture.run('delete from parts');
  });

  test('the capture follows the bound', async () => {
    await capture.run(`create table notes (id integer primary key, body text); select plank.attach('notes')`);
    await capture.run(`insert into notes values (1, repeat('x', 100000))`);
    await capture.run(`select plank.configure(row_bytes => 200000)`);
    const [update] = await capture.run(`update notes set body = body || 'y'`);
    expect([update!.old![0], update!.new![0]]).toEqual(['{', '{']);
    for (const wrong of [0, 65_535, 33_554_433])
      await expect(capture.run(`select plank.configure(row_bytes => ${wrong})`)).rejects.toThrow('must be between');
    await capture.run(`select plank.configure(${bound})`);
  });
});

describe('clients', () => {
  const stage = Stage.of(`
    create table docs (id integer primary key, kind text, n integer, body text);
    create table pairs (b integer, a text, body text, primary key (a, b));
    select plank.attach(t) from unnest('{docs,pairs}'::regclass[]) t;
    select plank.configure(${bound});
    insert into docs values (1, 'a', 1, 'small'), (2, 'b', 1, repeat('x', 100000));
    insert into pairs values (1, 'x', repeat('x', 100000))`);
  const at = (path: string) => `${stage.embedded.url}/api/${path}`;
  const send = (method: string, path: string, body: object) =>
    fetch(at(path), { method, headers: { 'content-type': 'application/json' }, body: JSON.stringify(body) });

  test('REST sends what there is of a large row, or refuses it', async () => {
    const got = await fetch(at('docs/2'));
    expect(got.status).toBe(422);
    expect(await got.json()).toMatchObject({
      code: 'ROW_TOO_LARGE',
      detail: `The row 2 of docs is larger than ${bound} bytes`,
    });
    const list = await fetch(at('docs'));
    expect(list.headers.get('plank-truncated')).toBe('1');
    expect(await list.json()).toEqual([
      { id: 1, kind: 'a', n: 1, body: 'small' },
      { id: 2, kind: 'b', n: 1 },
    ]);
    expect((await fetch(at('docs?limit=1'))).headers.get('plank-truncated')).toBe(null);
    const patched = await send('PATCH', 'docs/2', { n: 2 });
    expect([patched.status, patched.headers.get('plank-truncated'), await patched.json()]).toEqual([
      200,
      '1',
      { id: 2, kind: 'b', n: 2 },
    ]);
    const made = await send('POST', 'docs', { id: 3, kind: 'c', n: 0, body: 'y'.repeat(100_000) });
    expect([made.status, made.headers.get('location'), await made.json()]).toEqual([
      201,
      '/api/docs/3',
      { id: 3, kind: 'c', n: 0 },
    ]);
    const small = await send('PATCH', 'docs/3', { body: '' });
    expect([small.headers.get('plank-truncated'), await small.json()]).toEqual([
      null,
      { id: 3, kind: 'c', n: 0, body: '' },
    ]);
    expect((await fetch(at('docs/3'), { method: 'DELETE' })).status).toBe(204);
  });

  test.each([
    ['a WebSocket', overWebSocket],
    ['an event stream', overEvents],
  ])(
    'subscriptions over %s get the key of a large row, or the whole row if no requested column is missing',
    async (_, over) => {
      await stage.sql(`update docs set n = 1`);
      const { url } = stage.embedded;
      const all = await over(url, { table: 'docs', snapshot: true });
      const some = await over(url, { table: 'docs', columns: ['n'], where: { kind: 'b' }, snapshot: true });
      const pairs = await over(url, { table: 'pairs', snapshot: true });
      expect(await all.expect('rows')).toMatchObject({ rows: [{ id: 1 }], truncated: [2], more: false });
      expect(await some.expect('rows')).toMatchObject({ rows: [{ id: 2, n: 1 }], more: false });
      expect(some.all.at(-1)).not.toHaveProperty('truncated');
      expect(await pairs.expect('rows')).toMatchObject({ rows: [], truncated: [{ a: 'x', b: 1 }] });
      for (const reader of [all, some, pairs]) await reader.expect('live');
      await stage.sql(`update docs set n = 2 where id = 2; update pairs set body = body || 'y'`);
      const [change] = await all.changes(1);
      expect(change).toMatchObject({
        effect: 'change',
        action: 'UPDATE',
        id: 2,
        data: null,
        truncated: true,
        last: true,
      });
      const [projected] = await some.changes(1);
      expect(projected).toMatchObject({ effect: 'change', id: 2, data: { id: 2, n: 2 } });
      expect(projected).not.toHaveProperty('truncated');
      expect((await pairs.changes(1))[0]).toMatchObject({ id: { a: 'x', b: 1 }, data: null, truncated: true });
      await stage.sql(`update docs set kind = 'c' where id = 2; update docs set kind = 'b' where id = 2`);
      expect((await some.changes(2)).map(({ effect, data }) => [effect, data])).toEqual([
        ['remove', undefined],
        ['add', { id: 2, n: 2 }],
      ]);
      // the same again on a resume from before
      const again = await over(url, { table: 'docs', from: change!.pos });
      expect((await again.changes(2)).map(({ data, truncated }) => [data, truncated])).toEqual([
        [null, true],
        [null, true],
      ]);
      for (const reader of [all, some, pairs, again]) reader.close();
    },
  );

  test('a filter by a missing column of a large row begins the subscription again', async () => {
    const { url } = stage.embedded;
    const one = await overWebSocket(url, { table: 'docs', where: { body: 'small' }, snapshot: true });
    expect((await one.expect('rows')).rows).toHaveLength(1);
    await one.expect('live');
    await stage.sql('update docs set n = 3 where id = 2');
    expect(await one.expect('resync')).toMatchObject({ reason: 'shape' });
    expect((await one.expect('rows')).rows).toHaveLength(1);
    await one.expect('live');
    await stage.sql('update docs set n = 3 where id = 1');
    expect((await one.changes(1))[0]).toMatchObject({ id: 1, data: { body: 'small' } });
    one.close();
  });

  test('a filter by a missing column of a large row loses no later change, live and on a resume', async () => {
    const { url } = stage.embedded;
    const ask = { table: 'docs', where: { body: 'small' } };
    const live = await overWebSocket(url, ask);
    const { pos } = await live.expect('live');
    await stage.sql('update docs set n = 3 where id = 2');
    await live.expect('resync');
    await live.expect('live');
    await stage.sql('update docs set n = 3 where id = 1');
    const [change] = await live.changes(1);
    const again = await overWebSocket(url, { ...ask, from: pos });
    expect(await again.expect('resync')).toMatchObject({ reason: 'shape', pos: expect.any(String) as string });
    expect(await again.changes(1)).toEqual([change]);
    await again.expect('live');
    for (const reader of [live, again]) reader.close();
  });

  test('the SDK has the key of a large row, and marks it as truncated', async () => {
    const plank = createPlank({ url: `${stage.embedded.url}/ws` });
    try {
      const docs = plank.table<{ id: number; n?: number }>('docs').live();
      const pairs = plank.table('pairs').live();
      await Promise.all([docs.ready, pairs.ready]);
      expect(docs.rows.get(2)).toEqual({ id: 2 });
      expect([...docs.rows.values()].map(isTruncated)).toEqual([false, true]);
      expect([...pairs.rows]).toEqual([['{"a":"x","b":1}', { a: 'x', b: 1 }]]);
      await stage.sql(`update docs set body = case id when 1 then repeat('x', 100000) else 'less' end`);
      await until(
        'both changes arrive',
        () => docs.rows.get(2)!.n !== undefined && docs.rows.get(1)!.n === undefined,
        5_000,
      );
      expect([...docs.rows.values()].map(isTruncated)).toEqual([true, false]);
      await stage.sql(`update docs set body = case id when 2 then repeat('x', 100000) else 'small' end`);
      await until(
        'both changes arrive',
        () => docs.rows.get(1)!.n !== undefined && docs.rows.get(2)!.n === undefined,
        5_000,
      );
    } finally {
      plank.close();
    }
  });

  test('plain mode sends the key of a large row', async () => {
    const client = await stage.plain({ tables: 'docs', keepsFrames: true });
    const large = `repeat('x', 100000)`;
    await stage.sql(
      `update docs set n = 4 where id = 2; delete from docs where id = 2; insert into docs values (2, 'b', 1, ${large})`,
    );
    await stage.sql('update docs set n = 9 where id = 1');
    await until('the frames', () => client.count === 4, 5_000);
    const frames = client.frames.map((text) => JSON.parse(text) as { pos: string });
    const pos = expect.any(String) as string;
    expect(frames).toEqual([
      { table: 'docs', action: 'UPDATE', id: 2, data: null, pos, truncated: true },
      { table: 'docs', action: 'DELETE', id: 2, data: null, pos, truncated: true },
      { table: 'docs', action: 'INSERT', id: 2, data: null, pos, truncated: true },
      { table: 'docs', action: 'UPDATE', id: 1, data: { id: 1, kind: 'a', n: 9, body: 'small' }, pos },
    ]);
    expect(Object.keys(frames[0]!)).toEqual(['table', 'action', 'id', 'data', 'pos', 'truncated']);
    const again = await stage.plain({ tables: 'docs', since: frames[0]!.pos, keepsFrames: true });
    await until('the same frames arrive', () => again.count === 3, 5_000);
    expect(again.frames).toEqual(client.frames.slice(1));
  });
});
