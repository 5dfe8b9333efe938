// The REST side against a real Postgres: what comes back byte for byte, paging, and every way of asking wrongly.

import { createServer, request as rawRequest, type Server } from 'node:http';
import type { AddressInfo } from 'node:net';
import { gzipSync } from 'node:zlib';
import { pino } from 'pino';
import { Registry } from 'prom-client';
import { afterAll, beforeAll, beforeEach, describe, expect, it } from 'vitest';
import { createApp, type Health } from '../../services/gateway/http.ts';
import { Catalog } from '../../shared/catalog.ts';
import { createPool, type Pool } from '../../shared/postgres.ts';
import { createDatabase, type TestDatabase } from '../support/servers.ts';

const schema = `
  create type mood as enum ('calm', 'wild');
  create domain positive as integer check (value > 0);
  create schema sales;
  create table odd (
    id uuid primary key default gen_random_uuid(), code varchar(20) not null, price numeric(8,2),
    meta jsonb not null default '{}', doc json, tags int[], words text[], at timestamptz, day date, big bigint, ratio real,
    ok boolean default true, m mood, n positive, ip inet, fixed char(3), raw bytea, span interval,
    double_price numeric generated always as (price * 2) stored, secret text default 'hush', "Odd ""name" text);
  create table sales.lines (a text, b integer, note text not null, primary key (a, b));
  create table moments (at timestamptz, n integer, primary key (at, n));
  create table people (id integer primary key, email text unique, age integer check (age > 0), hidden text not null default '-');
  create table pets (id bigint generated always as identity primary key, person integer not null references people);
  create table guarded (id integer primary key);
  create function refuse() returns trigger language plpgsql as $$ begin raise exception 'no more than that'; end $$;
  create trigger refuse before insert on guarded for each row execute function refuse();
  create table broken (id integer primary key);
  create function break() returns trigger language plpgsql as $$ begin perform no_such_function('secret thing'); return new; end $$;
  create trigger break before insert on broken for each row execute function break();
  select plank.attach('odd', exclude => '{secret}'), plank.attach('sales.lines'), plank.attach('moments'),
         plank.attach('people', exclude => '{hidden}'), plank.attach('pets'), plank.attach('guarded'), plank.attach('broken')`;

let database: TestDatabase;
let pool: Pool;
let server: Server;
let base: string;
let health: Health;
let ready: { ready: boolean; reason?: string };
const logged: string[] = [];
const registry = new Registry();

beforeAll(async () => {
  database = await createDatabase();
  const poolOptions = { applicationName: 'plank rest test', statementTimeoutMs: 10_000, max: 4, onError: () => {} };
  pool = createPool(database.url, poolOptions);
  await pool.query(schema);
  const catalog = new Catalog(pool);
  await catalog.load();
  const app = createApp({
    config: { CORS_ORIGINS: ['https://shop.example'], MAX_BODY_BYTES: 256 * 1024 },
    log: pino({ level: 'info' }, { write: (line: string) => void logged.push(line) }),
    catalog,
    pool,
    health: () => Promise.resolve(health),
    ready: () => ready,
    registry,
  });
  server = createServer(app);
  await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve));
  base = `http://127.0.0.1:${(server.address() as AddressInfo).port}`;
});

beforeEach(async () => {
  health = { status: 'ok', node: 'gw-1', connections: 3, database: 'connected' };
  ready = { ready: true };
  logged.length = 0;
  await pool.query('truncate items, odd, sales.lines, moments, people, pets restart identity');
});

afterAll(async () => {
  await new Promise((resolve) => server?.close(resolve));
  await pool?.end();
  await database?.drop();
});

interface Answer {
  status: number;
  headers: Headers;
  text: string;
  problem: { code: string; status: number; detail: string; errors?: { path: string; message: string }[] };
}

async function call(
  method: string,
  path: string,
  body?: unknown,
  headers: Record<string, string> = {},
): Promise<Answer> {
  const init: RequestInit = { method, headers };
  if (body !== undefined) {
    init.headers = { 'content-type': 'application/json', ...headers };
    init.body = typeof body === 'string' || body instanceof Uint8Array ? (body as BodyInit) : JSON.stringify(body);
  }
  const response = await fetch(base + path, init);
  const text = await response.text();
  const isProblem = response.headers.get('content-type')?.startsWith('application/problem+json');
  if (response.status >= 400 && response.status !== 503) expect(isProblem).toBe(true);
  const problem = (isProblem ? JSON.parse(text) : {}) as Answer['problem'];
  if (isProblem) expect(problem.status).toBe(response.status);
  return { status: response.status, headers: response.headers, text, problem };
}

async function imageOf(relation: string, where: string): Promise<string> {
  return (await pool.query<{ image: string }>(`select to_json(t)::text as image from ${relation} t where ${where}`))
    .rows[0]!.image;
}

describe('rows', () => {
  it('creates, reads, replaces, patches and deletes, with the bytes of to_json', async () => {
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

  it('keeps every type and digit, and answers what capture captures', async () => {
    const body = `{"code":"héllo 😀","price":12.5,"meta":{"a":1.0,"n":12345678901234567890,"__proto__":{"x":1}},"doc":{"z": 1},
      "tags":[1,null,2],"words":["a\\"b\\\\","x,{y}","NULL"],"at":"2026-01-31T12:00:00+02:00","day":"2026-01-31",
      "big":9007199254740993,"ratio":1.5,"m":"calm","n":5,"ip":"10.0.0.1","fixed":"ab","raw":"\\\\x00ff","span":"P1DT2H",
      "Odd \\"name":"q"}`;
    const made = await call('POST', '/api/odd', body);
    expect(made.status).toBe(201);
    const [captured] = (
      await pool.query<{ new: string }>(
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

  it('PUT resets what is left out to its default, and keeps key, generated and excluded columns', async () => {
    const id = 'a0eebc99-9c0b-4ef8-bb6d-6bb9bd380a11';
    await pool.query(`insert into odd (id, code, ok, meta, secret) values ($1, 'a', false, '{"b":1}', 'mine')`, [id]);
    const replaced = await call('PUT', `/api/odd/${id}`, { code: 'b' });
    expect(JSON.parse(replaced.text)).toMatchObject({ id, code: 'b', ok: true, meta: {}, price: null });
    expect((await pool.query('select secret from odd')).rows).toEqual([{ secret: 'mine' }]);
  });

  it('addresses composite keys', async () => {
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
      expect(page.headers.get('plank-next-cursor')).toBe(next ? new URL(next, base).searchParams.get('cursor') : null);
    }
    return { rows, pages };
  }

  it('walks a composite key with ties and microseconds, in order and without a gap', async () => {
    await pool.query(`insert into moments select timestamptz '2026-01-01' + (i % 3) * interval '1 microsecond', i
      from generate_series(1, 50) i`);
    const all = JSON.parse(await aggregate('moments', 'at, n')) as unknown[];
    for (const limit of [1, 7, 25, 50, 51]) {
      const { rows, pages } = await walk(`/api/moments?limit=${limit}`);
      expect(rows).toEqual(all);
      expect(pages).toBe(Math.ceil(50 / limit));
    }
  });

  it('goes on where it was when rows vanish, the one of the cursor too', async () => {
    await pool.query(`insert into items (name) select 'n' || i from generate_series(1, 10) i`);
    const first = await call('GET', '/api/items?limit=4');
    await pool.query('delete from items where id in (2, 4, 5)');
    const cursor = first.headers.get('plank-next-cursor')!;
    const second = await call('GET', `/api/items?limit=4&cursor=${cursor}`);
    expect((JSON.parse(second.text) as { id: number }[]).map(({ id }) => id)).toEqual([6, 7, 8, 9]);
  });

  it('gives 100 rows unless told', async () => {
    await pool.query(`insert into items (name) select 'n' from generate_series(1, 101)`);
    expect((JSON.parse((await call('GET', '/api/items')).text) as unknown[]).length).toBe(100);
  });

  async function aggregate(relation: string, order: string): Promise<string> {
    const text = `select json_agg(t order by ${order})::text as all from ${relation} t`;
    return (await pool.query<{ all: string }>(text)).rows[0]!.all;
  }

  it.each([
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
  ])('refuses ?%s', async (query, detail) => {
    const answer = await call('GET', `/api/items?${query}`);
    expect([answer.status, answer.problem.code, answer.problem.detail]).toEqual([400, 'INVALID', detail]);
  });
});

describe('wrong requests', () => {
  const big = JSON.stringify({ name: 'x'.repeat(1024 * 1024) });
  const int8 = 'id must be a whole number between -9223372036854775808 and 9223372036854775807';

  it.each<[string, string, unknown, Record<string, string>, number, string, RegExp | string]>([
    ['POST', '/api/items', '{"name":', {}, 400, 'MALFORMED', /end of JSON/],
    ['POST', '/api/items', '{name:1}', {}, 400, 'MALFORMED', /at position 1/],
    ['POST', '/api/items', '{"name":"a"} x', {}, 400, 'MALFORMED', /at position 13/],
    ['POST', '/api/items', '['.repeat(100_000), {}, 400, 'MALFORMED', /not JSON/],
    ['POST', '/api/items', `${'['.repeat(100_000)}${']'.repeat(100_000)}`, {}, 400, 'MALFORMED', /not JSON/],
    ['POST', '/api/items', Buffer.from('{"name":"\xff"}', 'latin1'), {}, 400, 'MALFORMED', /UTF-8/],
    ['POST', '/api/items', undefined, {}, 400, 'MALFORMED', /no body/],
    ['POST', '/api/items', '', { 'content-type': 'application/json' }, 400, 'MALFORMED', /no body/],
    ['POST', '/api/items', '{}', { 'content-type': 'text/plain' }, 415, 'UNSUPPORTED_MEDIA_TYPE', /application\/json/],
    [
      'POST',
      '/api/items',
      '{}',
      { 'content-type': 'application/json; charset=latin1' },
      415,
      'UNSUPPORTED_MEDIA_TYPE',
      /LATIN1/,
    ],
    ['POST', '/api/items', '{}', { 'content-encoding': 'rar' }, 415, 'UNSUPPORTED_MEDIA_TYPE', /rar/],
    ['POST', '/api/items', '{}', { 'content-encoding': 'gzip' }, 400, 'MALFORMED', /header/],
    ['POST', '/api/items', big, {}, 413, 'TOO_LARGE', /262144/],
    ['POST', '/api/items', gzipSync(big), { 'content-encoding': 'gzip' }, 413, 'TOO_LARGE', /262144/],
    ['POST', '/api/items', 'null', {}, 400, 'INVALID', 'The body must be a JSON object'],
    ['POST', '/api/items', '[{"name":"a"}]', {}, 400, 'INVALID', 'The body must be a JSON object'],
    ['POST', '/api/items', {}, {}, 400, 'INVALID', 'name is required'],
    ['POST', '/api/items', { name: 5, value: 'x' }, {}, 400, 'INVALID', 'name must be text; value must be a number'],
    ['POST', '/api/items', { name: null }, {}, 400, 'INVALID', 'name must not be null'],
    ['POST', '/api/items', { name: '' }, {}, 400, 'INVALID', 'name violates the check constraint items_name_check'],
    ['POST', '/api/items', '{"name":"a\\u0000"}', {}, 400, 'INVALID', 'name must not contain the character \\u0000'],
    [
      'POST',
      '/api/items',
      '{"name":"a","value":1e999}',
      {},
      400,
      'INVALID',
      'value must be a number that fits 64 bits',
    ],
    ['POST', '/api/items', { name: 'a', colour: 'red' }, {}, 400, 'INVALID', 'colour is not a column of items'],
    [
      'POST',
      '/api/items',
      '{"name":"a","__proto__":{"id":9}}',
      {},
      400,
      'INVALID',
      '__proto__ is not a column of items',
    ],
    [
      'POST',
      '/api/items',
      { name: 'a', id: 5, created_at: 'x' },
      {},
      400,
      'INVALID',
      'id is read-only; created_at is read-only',
    ],
    ['POST', '/api/items?x=1', { name: 'a' }, {}, 400, 'INVALID', 'x is not a parameter of this address'],
    ['PATCH', '/api/items/1', {}, {}, 400, 'INVALID', 'The body must have at least one field'],
    ['PUT', '/api/items/1', { value: 1 }, {}, 400, 'INVALID', 'name is required'],
    ['GET', '/api/items/abc', undefined, {}, 400, 'INVALID', int8],
    ['GET', '/api/items/1.5', undefined, {}, 400, 'INVALID', int8],
    ['GET', '/api/items/9223372036854775808', undefined, {}, 400, 'INVALID', int8],
    ['DELETE', "/api/items/1'--", undefined, {}, 400, 'INVALID', int8],
    ['PUT', '/api/items/abc', { name: 'x' }, {}, 400, 'INVALID', int8],
    ['GET', '/api/items/%zz', undefined, {}, 400, 'MALFORMED', /%zz/],
    ['GET', '/api/odd/7', undefined, {}, 400, 'INVALID', 'id must be a UUID'],
    ['GET', '/api/moments/yesterday,1', undefined, {}, 400, 'INVALID', /^at must be a date and time/],
    ['GET', '/api/nope', undefined, {}, 404, 'NOT_FOUND', /nope/],
    ['POST', '/api/nope', big, {}, 404, 'NOT_FOUND', /nope/],
    ['GET', '/api/pg_class', undefined, {}, 404, 'NOT_FOUND', /pg_class/],
    ['GET', '/api/constructor', undefined, {}, 404, 'NOT_FOUND', /constructor/],
    ['GET', '/api/items/1/2', undefined, {}, 404, 'NOT_FOUND', /items/],
    ['GET', '/api', undefined, {}, 404, 'NOT_FOUND', ''],
    ['GET', '/nothing', undefined, {}, 404, 'NOT_FOUND', /nothing/],
    ['GET', '/.env', undefined, {}, 404, 'NOT_FOUND', ''],
    ['GET', '/console/index.html', undefined, {}, 404, 'NOT_FOUND', ''],
    ['POST', '/api/odd', { code: 'a', m: 'sad' }, {}, 400, 'INVALID', /^m is refused: .*enum mood/],
    ['POST', '/api/odd', { code: 'a', ip: 'zz' }, {}, 400, 'INVALID', /^ip is refused: .*inet/],
    ['POST', '/api/odd', { code: 'a', n: -5 }, {}, 400, 'INVALID', /positive_check/],
    ['POST', '/api/odd', { code: 'a', price: 12345678 }, {}, 400, 'INVALID', /precision 8, scale 2/],
    ['POST', '/api/odd', { code: 'a'.repeat(21) }, {}, 400, 'INVALID', 'code must be text of at most 20 characters'],
    ['POST', '/api/odd', { code: 'a', secret: 'x' }, {}, 400, 'INVALID', 'secret is not a column of odd'],
    ['POST', '/api/odd', { code: 'a', double_price: 1 }, {}, 400, 'INVALID', 'double_price is read-only'],
    ['POST', '/api/odd', { code: 'a', tags: [[1], [2, 3]] }, {}, 400, 'INVALID', /^tags is refused/],
    ['POST', '/api/odd', '{"code":"a","meta":{"b":"\\u0000"}}', {}, 400, 'INVALID', /^meta is refused/],
    ['POST', '/api/odd', { code: 'a', at: '2026-02-30T00:00:00Z' }, {}, 400, 'INVALID', /^at must be a date and time/],
    ['POST', '/api/guarded', { id: 1 }, {}, 400, 'INVALID', 'no more than that'],
  ])('%$: %s %s', async (method, path, body, headers, status, code, detail) => {
    const answer = await call(method, path, body, headers);
    expect([answer.status, answer.problem.code]).toEqual([status, code]);
    if (typeof detail === 'string' && detail !== '') expect(answer.problem.detail).toBe(detail);
    else expect(answer.problem.detail).toMatch(detail);
    expect(logged).toEqual([]);
    expect((await pool.query('select from items')).rowCount).toBe(0);
  });

  it('says what conflicts, without the contents of other rows', async () => {
    const problemOf = async (method: string, path: string, body?: unknown) => {
      const { problem } = await call(method, path, body);
      return [problem.status, problem.detail];
    };
    await call('POST', '/api/people', { id: 1, email: 'ann@example.org' });
    expect(await problemOf('POST', '/api/people', { id: 1 })).toEqual([409, expect.stringContaining('people_pkey')]);
    expect(await problemOf('POST', '/api/people', { id: 2, email: 'ann@example.org' })).toEqual([
      409,
      'A row with the same values exists already (constraint people_email_key)',
    ]);
    expect(await problemOf('PATCH', '/api/people/1', { age: 0 })).toEqual([
      400,
      'age violates the check constraint people_age_check',
    ]);
    expect(await problemOf('POST', '/api/pets', { person: 9 })).toEqual([
      400,
      expect.stringContaining('pets_person_fkey'),
    ]);
    await call('POST', '/api/pets', { person: 1 });
    expect(await problemOf('DELETE', '/api/people/1')).toEqual([409, expect.stringContaining('pets_person_fkey')]);
    expect(await problemOf('PATCH', '/api/people/1', { id: 2 })).toEqual([
      409,
      expect.stringContaining('pets_person_fkey'),
    ]);
  });

  it('lists at most 20 of the wrong fields', async () => {
    const body = Object.fromEntries(
      Array.from({ length: 5000 }, (_, i) => [`${'k'.repeat(i === 0 ? 5000 : 1)}${i}`, 1]),
    );
    const { problem, text } = await call('POST', '/api/items', body);
    expect(problem.errors).toHaveLength(20);
    expect(problem.detail).toMatch(/and \d+ more$/);
    expect(text.length).toBeLessThan(5000);
  });

  it.each([
    ['DELETE', '/api/items', 'GET, HEAD, POST'],
    ['POST', '/api/items/1', 'GET, HEAD, PUT, PATCH, DELETE'],
    ['POST', '/health', 'GET, HEAD'],
    ['PUT', '/', 'GET, HEAD'],
  ])('%s %s is not allowed', async (method, path, allow) => {
    const answer = await call(method, path);
    expect([answer.status, answer.headers.get('allow'), answer.problem.code]).toEqual([
      405,
      allow,
      'METHOD_NOT_ALLOWED',
    ]);
  });

  it('answers 500 without internals, and logs once without contents', async () => {
    const answer = await call('POST', '/api/broken', { id: 4711 });
    expect([answer.status, answer.problem.code]).toEqual([500, 'INTERNAL']);
    expect(answer.text).not.toMatch(/no_such_function|secret thing|42883/);
    expect(logged).toHaveLength(1);
    expect(JSON.parse(logged[0]!)).toMatchObject({ method: 'POST', route: '/api/:table', postgres: { code: '42883' } });
    expect(logged[0]).not.toMatch(/4711|secret thing/);
  });

  it('answers 503 while Postgres ends sessions, and goes on after', async () => {
    const other = createPool(database.url, {
      applicationName: 'killer',
      statementTimeoutMs: 5_000,
      max: 1,
      onError: () => {},
    });
    await other.query('begin; lock table items');
    const waiting = call('POST', '/api/items', { name: 'x' });
    await expect
      .poll(async () => {
        const { rowCount } = await other.query(
          `select pg_terminate_backend(pid) from pg_stat_activity where wait_event_type = 'Lock' and application_name = 'plank rest test'`,
        );
        return rowCount;
      })
      .toBe(1);
    const answer = await waiting;
    expect([answer.status, answer.problem.code, answer.headers.get('retry-after')]).toEqual([503, 'UNAVAILABLE', '1']);
    await other.query('rollback');
    await other.end();
    expect((await call('POST', '/api/items', { name: 'x' })).status).toBe(201);
  });

  it('asks for another try where a column has just gone, and says what the role may not do', async () => {
    await pool.query('alter table people rename age to years');
    expect((await call('PATCH', '/api/people/1', { age: 5 })).status).toBe(503);
    await pool.query('alter table people rename years to age');
    const role = `plank_test_${database.name}`;
    await pool.query(`create role ${role}; grant usage on schema public to ${role}; grant select on items to ${role}`);
    const limited = createPool(database.url, {
      applicationName: 'limited',
      statementTimeoutMs: 5_000,
      max: 1,
      onError: () => {},
    });
    try {
      await limited.query(`set role ${role}`);
      const catalog = new Catalog(pool);
      await catalog.load();
      const config = { CORS_ORIGINS: ['*'], MAX_BODY_BYTES: 1024 };
      const log = pino({ level: 'silent' });
      const app = createApp({
        config,
        log,
        catalog,
        pool: limited,
        health: () => Promise.resolve(health),
        ready: () => ready,
        registry: new Registry(),
      });
      await using stack = new AsyncDisposableStack();
      const second = app.listen(0, '127.0.0.1');
      stack.defer(() => new Promise((resolve) => second.close(() => resolve())));
      await new Promise((resolve) => second.once('listening', resolve));
      const address = `http://127.0.0.1:${(second.address() as AddressInfo).port}/api/items`;
      expect((await fetch(address)).status).toBe(200);
      const refused = await fetch(`${address}/1`, { method: 'DELETE' });
      expect([refused.status, ((await refused.json()) as { code: string }).code]).toEqual([403, 'FORBIDDEN']);
    } finally {
      await limited.end();
      await pool.query(`drop owned by ${role}; drop role ${role}`);
    }
  });
});

describe('beside the tables', () => {
  it('tells health by status', async () => {
    const good = await call('GET', '/health');
    expect([good.status, JSON.parse(good.text)]).toEqual([200, health]);
    health = { ...health, status: 'degraded', database: 'unreachable' };
    expect((await call('GET', '/health')).status).toBe(503);
    expect((await call('GET', '/health/live')).status).toBe(200);
    expect((await call('GET', '/health/ready')).status).toBe(200);
    ready = { ready: false, reason: 'draining' };
    const not = await call('GET', '/health/ready');
    expect([not.status, not.text]).toEqual([503, '{"ready":false,"reason":"draining"}']);
  });

  it('counts requests by pattern', async () => {
    await call('GET', '/api/items/12345');
    await call('GET', '/nowhere/at/all');
    const { text, headers } = await call('GET', '/metrics');
    expect(headers.get('content-type')).toContain('text/plain');
    expect(text).toMatch(/plank_http_requests_total\{method="GET",route="\/api\/:table\/:id",status="404"\} \d/);
    expect(text).toMatch(/plank_http_requests_total\{method="GET",route="unknown",status="404"\} \d/);
    expect(text).not.toMatch(/12345|nowhere/);
  });

  it('allows the configured origins only, and shows them the paging headers', async () => {
    const allowed = await call('GET', '/api/items', undefined, { origin: 'https://shop.example' });
    expect(allowed.headers.get('access-control-allow-origin')).toBe('https://shop.example');
    expect(allowed.headers.get('access-control-expose-headers')).toContain('Plank-Next-Cursor');
    const other = await call('GET', '/api/items', undefined, { origin: 'https://evil.example' });
    expect(other.headers.get('access-control-allow-origin')).toBeNull();
  });

  it('serves the test page, with a policy that allows no inline script', async () => {
    for (const path of ['/', '/page.js', '/page.css', '/icon.svg']) {
      const page = await call('GET', path);
      expect([path, page.status]).toEqual([path, 200]);
      expect(page.headers.get('content-security-policy')).toContain("default-src 'self'");
      expect(page.headers.get('x-powered-by')).toBeNull();
    }
    expect((await call('GET', '/')).text).not.toMatch(/<script>|\son\w+=|\sstyle=/);
  });

  it('serves the SDK to pages of other origins, and again only when it has changed', async () => {
    const entry = await call('GET', '/plank.js', undefined, { origin: 'https://shop.example' });
    expect(entry).toMatchObject({ status: 200, text: "export * from './client/plank-client.js';\n" });
    expect(entry.headers.get('access-control-allow-origin')).toBe('https://shop.example');
    for (const path of ['/plank.js', '/client/plank-client.js', '/client/react.js', '/shared/wire.js']) {
      const { status, headers } = await call('GET', path);
      expect([path, status, headers.get('content-type')]).toEqual([path, 200, 'text/javascript; charset=utf-8']);
      expect(headers.get('cache-control')).toBe('no-cache');
      // with a tag, fetch would ask caches to step aside
      const tag = { 'if-none-match': headers.get('etag')!, 'cache-control': 'max-age=0' };
      const again = await call('GET', path, undefined, tag);
      expect([path, again.status, again.text]).toEqual([path, 304, '']);
    }
    expect((await call('GET', '/client/plank-client.ts')).status).toBe(404);
  });

  it('does not leave the folder of the page', async () => {
    // fetch would resolve the dots itself
    const status = await new Promise((resolve, reject) => {
      const { port } = server.address() as AddressInfo;
      rawRequest({ port, host: '127.0.0.1', path: '/../package.json' }, (response) => {
        response.resume();
        resolve(response.statusCode);
      })
        .on('error', reject)
        .end();
    });
    expect(status).toBe(404);
  });
});
