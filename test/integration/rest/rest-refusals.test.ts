// Wrong requests over REST, and refusals by Postgres: the answers, which never have the contents of other rows, and the log.

import { gzipSync } from 'node:zlib';
import { beforeEach, expect, test } from 'vitest';
import { testPool } from '../../support/servers/pool.ts';
import { RestApp } from '../../support/stage/rest-app.ts';

const app = RestApp.of(`
  create type mood as enum ('calm', 'wild');
  create domain positive as integer check (value > 0);
  create table odd (
    id uuid primary key default gen_random_uuid(), code varchar(20) not null, price numeric(8,2), meta jsonb, tags int[],
    at timestamptz, m mood, n positive, ip inet, double_price numeric generated always as (price * 2) stored, secret text);
  create table moments (at timestamptz, n integer, primary key (at, n));
  create table people (id integer primary key, email text unique, age integer check (age > 0), hidden text not null default '-');
  create table pets (id bigint generated always as identity primary key, person integer not null references people);
  create table guarded (id integer primary key);
  create function refuse() returns trigger language plpgsql as $$ begin raise exception 'no more than that'; end $$;
  create trigger refuse before insert on guarded for each row execute function refuse();
  create table broken (id integer primary key);
  create function break() returns trigger language plpgsql as $$ begin perform no_such_function('secret thing'); return new; end $$;
  create trigger break before insert on broken for each row execute function break();
  select plank.attach('odd', exclude => '{secret}'), plank.attach('moments'), plank.attach('people', exclude => '{hidden}'),
         plank.attach('pets'), plank.attach('guarded'), plank.attach('broken')`);
const { call, logged } = app;

beforeEach(() => app.pool.query('truncate items, odd, moments, people, pets restart identity'));

const big = JSON.stringify({ name: 'x'.repeat(1024 * 1024) });
const int8 = 'id must be a whole number between -9223372036854775808 and 9223372036854775807';

test.each<[string, string, unknown, Record<string, string>, number, string, RegExp | string]>([
  ['POST', '/api/items', '{"name":', {}, 400, 'MALFORMED', /end of JSON/],
  ['POST', '/api/items', '{name:1}', {}, 400, 'MALFORMED', /at position 1/],
  ['POST', '/api/items', '{"name":"a"} x', {}, 400, 'MALFORMED', /at position 13/],
  ['POST', '/api/items', '['.repeat(100_000), {}, 400, 'MALFORMED', /not JSON/],
  ['POST', '/api/items', `${'['.repeat(100_000)}${']'.repeat(100_000)}`, {}, 400, 'MALFORMED', /too deeply/],
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
  ['POST', '/api/items', '{"name":"a","value":1e999}', {}, 400, 'INVALID', 'value must be a number that fits 64 bits'],
  ['POST', '/api/items', { name: 'a', colour: 'red' }, {}, 400, 'INVALID', 'colour is not a column of items'],
  ['POST', '/api/items', '{"name":"a","__proto__":{"id":9}}', {}, 400, 'INVALID', '__proto__ is not a column of items'],
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
  ['GET', '/try/index.html', undefined, {}, 404, 'NOT_FOUND', ''],
  ['GET', '/try/.env', undefined, {}, 404, 'NOT_FOUND', ''],
  ['GET', '/operators/main.js', undefined, {}, 404, 'NOT_FOUND', ''],
  ['POST', '/try/page.js', {}, {}, 405, 'METHOD_NOT_ALLOWED', ''],
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
])(
  'a wrong request is refused with the reason, %$: %s %s',
  async (method, path, body, headers, status, code, detail) => {
    const answer = await call(method, path, body, headers);
    expect([answer.status, answer.problem.code]).toEqual([status, code]);
    if (typeof detail === 'string' && detail !== '') expect(answer.problem.detail).toBe(detail);
    else expect(answer.problem.detail).toMatch(detail);
    expect(logged).toEqual([]);
    expect((await app.pool.query('select from items')).rowCount).toBe(0);
  },
);

test('a conflict is named without the contents of other rows', async () => {
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

test('a problem lists at most 20 wrong fields', async () => {
  const body = Object.fromEntries(Array.from({ length: 5000 }, (_, i) => [`${'k'.repeat(i === 0 ? 5000 : 1)}${i}`, 1]));
  const { problem, text } = await call('POST', '/api/items', body);
  expect(problem.errors).toHaveLength(20);
  expect(problem.detail).toMatch(/and \d+ more$/);
  expect(text.length).toBeLessThan(5000);
});

test.each([
  ['DELETE', '/api/items', 'GET, HEAD, POST'],
  ['POST', '/api/items/1', 'GET, HEAD, PUT, PATCH, DELETE'],
  ['POST', '/health', 'GET, HEAD'],
  ['PUT', '/', 'GET, HEAD'],
])('%s %s is answered with 405', async (method, path, allow) => {
  const answer = await call(method, path);
  expect([answer.status, answer.headers.get('allow'), answer.problem.code]).toEqual([405, allow, 'METHOD_NOT_ALLOWED']);
});

test('an internal error is answered with 500 without details, and logged once without contents', async () => {
  const answer = await call('POST', '/api/broken', { id: 4711 });
  expect([answer.status, answer.problem.code]).toEqual([500, 'INTERNAL']);
  expect(answer.text).not.toMatch(/no_such_function|secret thing|42883/);
  expect(logged).toHaveLength(1);
  expect(JSON.parse(logged[0]!)).toMatchObject({ method: 'POST', route: '/api/:table', err: { code: '42883' } });
  expect(logged[0]).not.toMatch(/4711|secret thing/);
});

test('a request is answered with 503 while Postgres ends sessions, and succeeds afterwards', async () => {
  const other = testPool(app.database.url, 1);
  await other.query('begin; lock table items');
  const waiting = call('POST', '/api/items', { name: 'x' });
  await expect
    .poll(async () => {
      const { rowCount } = await other.query(
        `select pg_terminate_backend(pid) from pg_stat_activity
         where wait_event_type = 'Lock' and application_name = 'plank rest test' and datname = current_database()`,
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

test('a request for a dropped column is answered with 503, and one without the right with 403', async () => {
  await app.pool.query('alter table people rename age to years');
  expect((await call('PATCH', '/api/people/1', { age: 5 })).status).toBe(503);
  await app.pool.query('alter table people rename years to age');
  const role = `plank_test_${app.database.name}`;
  await app.pool.query(
    `create role ${role}; grant usage on schema public to ${role}; grant select on items to ${role}`,
  );
  const limited = testPool(app.database.url, 1);
  try {
    await limited.query(`set role ${role}`);
    await using stack = new AsyncDisposableStack();
    const address = `${await app.serve(limited, stack)}/api/items`;
    expect((await fetch(address)).status).toBe(200);
    const refused = await fetch(`${address}/1`, { method: 'DELETE' });
    expect([refused.status, ((await refused.json()) as { code: string }).code]).toEqual([403, 'FORBIDDEN']);
  } finally {
    await limited.end();
    await app.pool.query(`drop owned by ${role}; drop role ${role}`);
  }
});
