// Rows over REST on a real Postgres: answers byte for byte, and page by page.

import { beforeEach, describe, expect, test } from 'vitest';
import { type Answer, RestApp } from '../../support/stage/rest-app.ts';

const app = RestApp.of(`
  create type mood as enum ('calm', 'wild');
  create domain positive as integer check (value > 0);
  create table odd (
    id uuid primary key default gen_random_uuid(), code varchar(20) not null, price numeric(8,2),
    meta jsonb not null default '{}', doc json, tags int[], words text[], at timestamptz, day date, big bigint, ratio real,
    ok boolean default true, m mood, n positive, ip inet, fixed char(3), raw bytea, span interval,
    double_price numeric generated always as (price * 2) stored, secret text default 'hush', "Odd ""name" text);
  create schema sales;
  create table sales.lines (a text, b integer, note text not null, primary key (a, b));
  create table moments (at timestamptz, n integer, primary key (at, n));
  select plank.attach('odd', exclude => '{secret}'), plank.attach('sales.lines'), plank.attach('moments')`);
const { call } = app;

beforeEach(() => app.pool.query('truncate items, odd, sales.lines, moments restart identity'));

async function imageOf(relation: string, where: string): Promise<string> {
  return (await app.pool.query<{ image: string }>(`select to_json(t)::text as image from ${relation} t where ${where}`))
    .rows[0]!.image;
}

describe('rows', () => {
  test('a row is created, read, replaced, patched and deleted, with the bytes of to_json', async () => {
    const made = await call('POST', '/api/items', { name: 'Test Item', value: 42 });
    expect(made.status).toBe(201);
    expect(made.headers.get('location')).toBe('/api/items/1');
    expect(made.text).toBe(await imageOf('items', 'id = 1'));

    const one = await call('GET', '/api/items/1');
    expect(one.text).toBe(made.text);
    expect(one.headers.get('content-type')).toBe('application/json; charset=utf-8');
    expect((await call('GET', '/api/items')).text).toBe(`[${made.text}]`);
    expect(one.headers.get('etag')).toBe((await call('GET', '/api/items/1')).headers.get('etag'));

    const patched = await call('PATCH', '/api/items/1', { value: 0.1 });
    expect(patched.text).toBe(await imageOf('items', 'id = 1'));
    expect(JSON.parse(patched.text)).toMatchObject({ name: 'Test Item', value: 0.1 });
    expect(JSON.parse(patched.text)).not.toMatchObject({ updated_at: JSON.parse(made.text).updated_at });

    const replaced = await call('PUT', '/api/items/1', { name: 'Other' });
    expect(JSON.parse(replaced.text)).toMatchObject({ id: 1, name: 'Other', value: null });

    const gone = await call('DELETE', '/api/items/1');
    expect([gone.status, gone.text]).toEqual([204, '']);
    for (const method of ['GET', 'DELETE']) expect((await call(method, '/api/items/1')).problem.code).toBe('NOT_FOUND');
    expect((await call('PUT', '/api/items/1', { name: 'x' })).status).toBe(404);
    expect((await call('PATCH', '/api/items/1', { name: 'x' })).status).toBe(404);
  });

  test('a row keeps every type and digit, and its answer equals what capture captures', async () => {
    const body = `{"code":"héllo 😀","price":12.5,"meta":{"a":1.0,"n":12345678901234567890,"__proto__":{"x":1}},"doc":{"z": 1},
      "tags":[1,null,2],"words":["a\\"b\\\\","x,{y}","NULL"],"at":"2026-01-31T12:00:00+02:00","day":"2026-01-31",
      "big":9007199254740993,"ratio":1.5,"m":"calm","n":5,"ip":"10.0.0.1","fixed":"ab","raw":"\\\\x00ff","span":"P1DT2H",
      "Odd \\"name":"q"}`;
    const made = await call('POST', '/api/odd', body);
    expect(made.status).toBe(201);
    const [captured] = (
      await app.pool.query<{ new: string }>(
        `select new::text from plank.outbox where new is not null order by id desc limit 1`,
      )
    ).rows;
    expect(made.text).toBe(captured!.new);
    for (const part of [
      '"n": 12345678901234567890',
      '"a": 1.0',
      '"__proto__"',
      '"big":9007199254740993',
      '"price":12.50',
      '"double_price":25.00',
      String.raw`"words":["a\"b\\","x,{y}","NULL"]`,
      '"fixed":"ab "',
      '"at":"2026-01-31T10:00:00+00:00"',
    ])
      expect(made.text).toContain(part);
    expect(made.text).not.toContain('hush');
    expect((await call('GET', made.headers.get('location')!)).text).toBe(made.text);
    expect(Object.prototype).not.toHaveProperty('x');
  });

  test('PUT resets missing columns to their defaults, and keeps key, generated and excluded columns', async () => {
    const id = 'a0eebc99-9c0b-4ef8-bb6d-6bb9bd380a11';
    await app.pool.query(`insert into odd (id, code, ok, meta, secret) values ($1, 'a', false, '{"b":1}', 'mine')`, [
      id,
    ]);
    const replaced = await call('PUT', `/api/odd/${id}`, { code: 'b' });
    expect(JSON.parse(replaced.text)).toMatchObject({ id, code: 'b', ok: true, meta: {}, price: null });
    expect((await app.pool.query('select secret from odd')).rows).toEqual([{ secret: 'mine' }]);
  });

  test('a row is reached by its composite key', async () => {
    const made = await call('POST', '/api/sales.lines', { a: 'x,/ y%', b: 3, note: 'n' });
    const address = '/api/sales.lines/x%2C%2F%20y%25,3';
    expect(made.headers.get('location')).toBe(address);
    expect((await call('GET', address)).text).toBe('{"a":"x,/ y%","b":3,"note":"n"}');
    expect((await call('PUT', address, { note: 'm' })).text).toBe('{"a":"x,/ y%","b":3,"note":"m"}');
    expect((await call('PATCH', address, { b: 4 })).status).toBe(200);
    expect((await call('DELETE', '/api/sales.lines/x%2C%2F%20y%25,4')).status).toBe(204);
    expect((await call('GET', '/api/sales.lines/x')).problem.errors).toEqual([
      { path: 'id', message: 'must be 2 values with commas between them: a,b' },
    ]);
  });
});

describe('paging', () => {
  async function walk(path: string): Promise<{ rows: unknown[]; pages: number }> {
    const rows: unknown[] = [];
    let pages = 0;
    for (let next: string | undefined = path; next !== undefined; pages++) {
      const page: Answer = await call('GET', next);
      expect(page.status).toBe(200);
      rows.push(...(JSON.parse(page.text) as unknown[]));
      next = /^<(.*)>; rel="next"$/.exec(page.headers.get('link') ?? '')?.[1];
      expect(page.headers.get('plank-next-cursor')).toBe(
        next ? new URL(next, app.base).searchParams.get('cursor') : null,
      );
    }
    return { rows, pages };
  }

  test('pages walk a composite key with ties and microseconds, in order and without a gap', async () => {
    await app.pool.query(`insert into moments select timestamptz '2026-01-01' + (i % 3) * interval '1 microsecond', i
      from generate_series(1, 50) i`);
    const all = JSON.parse(await aggregate('moments', 'at, n')) as unknown[];
    for (const limit of [1, 7, 25, 50, 51]) {
      const { rows, pages } = await walk(`/api/moments?limit=${limit}`);
      expect(rows).toEqual(all);
      expect(pages).toBe(Math.ceil(50 / limit));
    }
  });

  test("paging continues in its place when rows vanish, even the cursor's own", async () => {
    await app.pool.query(`insert into items (name) select 'n' || i from generate_series(1, 10) i`);
    const first = await call('GET', '/api/items?limit=4');
    await app.pool.query('delete from items where id in (2, 4, 5)');
    const cursor = first.headers.get('plank-next-cursor')!;
    const second = await call('GET', `/api/items?limit=4&cursor=${cursor}`);
    expect((JSON.parse(second.text) as { id: number }[]).map(({ id }) => id)).toEqual([6, 7, 8, 9]);
  });

  test('a list has 100 rows by default', async () => {
    await app.pool.query(`insert into items (name) select 'n' from generate_series(1, 101)`);
    expect((JSON.parse((await call('GET', '/api/items')).text) as unknown[]).length).toBe(100);
  });

  async function aggregate(relation: string, order: string): Promise<string> {
    const text = `select json_agg(t order by ${order})::text as all from ${relation} t`;
    return (await app.pool.query<{ all: string }>(text)).rows[0]!.all;
  }

  test.each([
    ['limit=0', 'limit must be a whole number between 1 and 1000'],
    ['limit=1001', 'limit must be a whole number between 1 and 1000'],
    ['limit=ten', 'limit must be a whole number between 1 and 1000'],
    ['limit=', 'limit must be a whole number between 1 and 1000'],
    ['limit=1&limit=2', 'limit must be given once'],
    ['offset=5', 'offset is not a parameter of this address'],
    ['__proto__=5', '__proto__ is not a parameter of this address'],
    ['cursor=', 'cursor is not a cursor of items'],
    ['cursor=zz', 'cursor is not a cursor of items'],
    [`cursor=${Buffer.from('["abc"]').toString('base64url')}`, 'cursor is not a cursor of items'],
    [`cursor=${Buffer.from('["1","2"]').toString('base64url')}`, 'cursor is not a cursor of items'],
    [`cursor=${Buffer.from('{"length":1}').toString('base64url')}`, 'cursor is not a cursor of items'],
  ])('GET refuses ?%s', async (query, detail) => {
    const answer = await call('GET', `/api/items?${query}`);
    expect([answer.status, answer.problem.code, answer.problem.detail]).toEqual([400, 'INVALID', detail]);
  });
});
