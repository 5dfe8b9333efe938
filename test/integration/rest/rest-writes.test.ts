// Writes and reads over REST with users' triggers, rules, row policies and types: 500 only for a fault in code. Conditional requests.
// Columns that are called like members of JavaScript objects.

import { beforeEach, describe, expect, test } from 'vitest';
import { testPool } from '../../support/servers/pool.ts';
import { RestApp } from '../../support/stage/rest-app.ts';

const raising = [
  ['P0001', 400, 'INVALID'],
  ['23505', 409, 'CONFLICT'],
  ['23514', 400, 'INVALID'],
  ['42501', 403, 'FORBIDDEN'],
  ['40001', 503, 'UNAVAILABLE'],
  ['55P03', 503, 'UNAVAILABLE'],
  ['45000', 400, 'INVALID'],
  ['PT403', 400, 'INVALID'],
  ['XX000', 400, 'INVALID'],
  ['42883', 400, 'INVALID'],
] as const;

const members = [
  'constructor',
  'toString',
  '__proto__',
  'hasOwnProperty',
  'valueOf',
  'isPrototypeOf',
  'length',
  'then',
  'toJSON',
  '1',
];

const app = RestApp.of(`
  create table soft (id integer primary key, note text, gone boolean not null default false);
  create rule soft as on delete to soft do instead update soft set gone = true where id = old.id;
  create table kept (id integer primary key, note text);
  create rule kept as on delete to kept do instead nothing;
  create table partly (id integer primary key, note text);
  create rule partly as on delete to partly where old.note = 'keep' do instead nothing;
  create table also (id integer primary key, note text);
  create table log_of_also (id integer);
  create rule also_u as on update to also do also insert into log_of_also values (new.id);
  create rule also_d as on delete to also do also insert into log_of_also values (old.id);
  create rule also_i as on insert to also do also insert into log_of_also values (new.id);
  create table stay (id integer primary key, note text);
  create rule stay as on update to stay do instead nothing;
  create table upper_case (id integer primary key, note text);
  create rule upper_u as on update to upper_case where new.note <> upper(new.note) do instead nothing;
  create table endless (id integer primary key, note text);
  create rule endless as on update to endless do instead update endless set note = upper(new.note) where id = old.id;
  create table refuses (id serial primary key, note text);
  create rule refuses as on insert to refuses do instead nothing;
  create table moved (id integer primary key, note text);
  create table other_place (id integer, note text);
  create rule moved as on insert to moved do instead insert into other_place values (new.id, new.note);

  create function swallow() returns trigger language plpgsql as $$ begin return null; end $$;
  create table swallowed (id integer primary key, note text);
  create trigger swallow before insert or update or delete on swallowed for each row execute function swallow();
  create table raises (id integer primary key, note text);
  create function say() returns trigger language plpgsql as $$
    begin raise exception 'not today, %', new.id using errcode = new.note; end $$;
  create trigger say before insert on raises for each row execute function say();
  create table touchy (id integer primary key, note text);
  create function touch() returns trigger language plpgsql as $$ begin update touchy set note = 'x' where id = old.id; return old; end $$;
  create trigger touch before delete on touchy for each row execute function touch();
  create table strict (id integer primary key, note text);
  create function pick() returns trigger language plpgsql as $$
    declare x integer; begin select 1 into strict x where false; return new; end $$;
  create trigger pick before insert on strict for each row execute function pick();
  create table ropy (id integer primary key, note varchar(3) not null, n smallint, r int4range, exclude using gist (r with &&));

  create type shy as enum ('a');
  create function shy_json(shy) returns json language plpgsql immutable as $$ begin raise exception 'it does not say'; end $$;
  create cast (shy as json) with function shy_json(shy);
  create table shies (id integer primary key, s shy);
  create extension hstore;
  create table stores (id integer primary key, h hstore, p point);

  create table objects (id integer primary key, ${members.map((name) => `"${name}" text`).join(', ')});
  create table demanding (id integer primary key, ${members.map((name) => `"${name}" text not null`).join(', ')});
  create table plain (id integer primary key, note text, at timestamptz not null default now(), hidden text);
  select ${[
    'soft',
    'kept',
    'partly',
    'also',
    'stay',
    'upper_case',
    'endless',
    'refuses',
    'moved',
    'swallowed',
    'raises',
    'touchy',
    'strict',
    'ropy',
    'shies',
    'stores',
    'objects',
    'demanding',
  ]
    .map((name) => `plank.attach('${name}')`)
    .join(', ')}, plank.attach('plain', exclude => '{hidden}', read_only => '{at}')`);
const { call, logged } = app;

describe('writes that a rule, trigger or constraint changes', () => {
  beforeEach(async () => {
    await app.pool.query(`
      truncate soft, kept, partly, also, log_of_also, stay, upper_case, moved, other_place, swallowed, touchy, ropy, shies, stores;
      insert into soft values (1, 'a'); insert into kept values (1, 'a'); insert into partly values (1, 'keep'), (2, 'go');
      insert into also values (1, 'a'); truncate log_of_also; insert into stay values (1, 'a'); insert into upper_case values (1, 'a');
      insert into touchy values (1, 'a');
      insert into ropy values (1, 'a', 1, '[1,5)');
      set session_replication_role = replica;
      insert into swallowed values (1, 'a');
      reset session_replication_role;`);
  });

  test.each<[string, string, unknown, number, string]>([
    ['DELETE', '/api/soft/1', undefined, 204, ''],
    ['GET', '/api/soft/9', undefined, 404, 'NOT_FOUND'],
    ['DELETE', '/api/soft/9', undefined, 404, 'NOT_FOUND'],
    ['DELETE', '/api/kept/1', undefined, 422, 'REFUSED'],
    ['DELETE', '/api/partly/1', undefined, 422, 'REFUSED'],
    ['DELETE', '/api/partly/2', undefined, 204, ''],
    ['DELETE', '/api/also/1', undefined, 204, ''],
    ['PATCH', '/api/also/1', { note: 'b' }, 200, '{"id":1,"note":"b"}'],
    ['POST', '/api/also', { id: 2, note: 'b' }, 201, '{"id":2,"note":"b"}'],
    ['PATCH', '/api/stay/1', { note: 'b' }, 200, '{"id":1,"note":"a"}'],
    ['PATCH', '/api/stay/9', { note: 'b' }, 404, 'NOT_FOUND'],
    ['PATCH', '/api/upper_case/1', { note: 'b' }, 200, '{"id":1,"note":"a"}'],
    ['PATCH', '/api/endless/1', { note: 'b' }, 422, 'REFUSED'],
    ['PUT', '/api/upper_case/1', { note: 'BC' }, 200, '{"id":1,"note":"BC"}'],
    ['POST', '/api/refuses', { note: 'a' }, 422, 'REFUSED'],
    ['POST', '/api/refuses', { id: 5, note: 'a' }, 422, 'REFUSED'],
    ['POST', '/api/moved', { id: 5, note: 'a' }, 422, 'REFUSED'],
    ['POST', '/api/swallowed', { id: 2, note: 'a' }, 422, 'REFUSED'],
    ['PUT', '/api/swallowed/1', { note: 'b' }, 422, 'REFUSED'],
    ['PATCH', '/api/swallowed/1', { note: 'b' }, 422, 'REFUSED'],
    ['DELETE', '/api/swallowed/1', undefined, 422, 'REFUSED'],
    ['DELETE', '/api/swallowed/9', undefined, 404, 'NOT_FOUND'],
    ['DELETE', '/api/touchy/1', undefined, 422, 'REFUSED'],
    ['POST', '/api/ropy', { id: 2, note: 'abcd' }, 400, 'INVALID'],
    ['POST', '/api/ropy', { id: 2, note: 'a', r: '[2,3)' }, 409, 'CONFLICT'],
    ['POST', '/api/ropy', { id: 2, note: 'a', r: '[3,2)' }, 400, 'INVALID'],
    ['POST', '/api/ropy', { id: 2, note: 'a', n: 40000 }, 400, 'INVALID'],
    ['POST', '/api/ropy', { id: 2 }, 400, 'INVALID'],
    ['POST', '/api/stores', { id: 1, p: 'nowhere' }, 400, 'INVALID'],
    ['POST', '/api/stores', { id: 1, h: { a: '1' } }, 400, 'INVALID'],
    ['POST', '/api/stores', { id: 1, h: 'a=>1' }, 201, '{"id":1,"h":{"a": "1"},"p":null}'],
    ['POST', '/api/stores', { id: 1, h: 'a=>' }, 400, 'INVALID'],
    ['POST', '/api/stores', { id: 1, h: 'a\0=>1' }, 400, 'INVALID'],
    ['POST', '/api/stores', { id: 1, h: '\ud800=>1' }, 400, 'INVALID'],
    ...raising.map(([code, status, answer]): [string, string, unknown, number, string] => [
      'POST',
      '/api/raises',
      { id: 7, note: code },
      status,
      answer,
    ]),
  ])('%s %s %j is answered with %i', async (method, path, body, status, expected) => {
    const answer = await call(method, path, body);
    expect([answer.status, answer.status < 400 ? answer.text : answer.problem.code]).toEqual([status, expected]);
    if (path === '/api/raises') expect(answer.problem.detail).toBe('not today, 7');
    expect(logged).toEqual([]);
    // a refused write leaves nothing behind
    if (status === 422)
      expect(
        (await app.pool.query('select (select count(*) from other_place) + (select count(*) from log_of_also) as n'))
          .rows,
      ).toEqual([{ n: '0' }]);
  });

  test("a write that a rule rewrites has the rule's effect", async () => {
    await call('DELETE', '/api/soft/1');
    expect((await call('GET', '/api/soft/1')).text).toBe('{"id":1,"note":"a","gone":true}');
    await call('DELETE', '/api/also/1', undefined, { 'if-match': '"no"' });
    expect((await app.pool.query('select from log_of_also')).rowCount).toBe(0);
    await call('DELETE', '/api/also/1');
    expect((await app.pool.query('select from log_of_also')).rowCount).toBe(1);
  });

  test('a trigger with a fault in its code is answered with 500', async () => {
    expect((await call('POST', '/api/strict', { id: 1 })).status).toBe(500);
  });
});

test('a value that cannot be rendered as JSON is refused with its own error', async () => {
  const detached = testPool(app.database.url, 1);
  // capture renders rows as well: its triggers are off, so that such a row can exist
  await detached.query(`set session_replication_role = replica; insert into shies values (1, 'a')`);
  await detached.end();
  for (const path of ['/api/shies/1', '/api/shies']) {
    const answer = await call('GET', path);
    expect([answer.status, answer.problem.code, answer.problem.detail]).toEqual([422, 'REFUSED', 'it does not say']);
  }
  expect(logged).toEqual([]);
});

describe('row policies', () => {
  test.each<[string, string, unknown, number]>([
    ['GET', '/api/plain/2', undefined, 404],
    ['PATCH', '/api/plain/2', { note: 'x' }, 404],
    ['DELETE', '/api/plain/2', undefined, 404],
    ['PATCH', '/api/plain/1', { note: 'secret' }, 403],
    ['POST', '/api/plain', { id: 3, note: 'secret' }, 403],
    ['POST', '/api/plain', { id: 3, note: 'mine' }, 201],
    ['PATCH', '/api/plain/1', { note: 'still mine' }, 200],
  ])('%s %s %j under a row policy is answered with %i', async (method, path, body, status) => {
    const role = `plank_rows_${app.database.name}`;
    await app.pool.query(`truncate plain; insert into plain values (1, 'mine'), (2, 'secret');
      alter table plain enable row level security; drop policy if exists mine on plain;
      create policy mine on plain using (note <> 'secret') with check (true);
      create role ${role}; grant usage on schema public to ${role}; grant all on plain to ${role}`);
    const limited = testPool(app.database.url, 1);
    try {
      await limited.query(`set role ${role}`);
      await using stack = new AsyncDisposableStack();
      const base = await app.serve(limited, stack);
      const init = {
        method,
        headers: { 'content-type': 'application/json' },
        ...(body ? { body: JSON.stringify(body) } : {}),
      };
      expect((await fetch(base + path, init)).status).toBe(status);
    } finally {
      await limited.end();
      await app.pool.query(`drop owned by ${role}; drop role ${role}; alter table plain disable row level security`);
    }
  });
});

describe('columns called like members of objects', () => {
  const row = (value: unknown) => `{"id":1,${members.map((name) => `"${name}":${JSON.stringify(value)}`).join(',')}}`;
  beforeEach(() => app.pool.query('truncate objects, demanding'));

  test('columns called like members of objects may be left out, and are null then', async () => {
    const made = await call('POST', '/api/objects', { id: 1 });
    expect([made.status, made.text]).toEqual([201, row(null)]);
  });

  test('columns called like members of objects are required if they must not be null', async () => {
    const { problem } = await call('POST', '/api/demanding', { id: 1 });
    expect(problem.errors?.map(({ path }) => path)).toEqual(members);
  });

  test('columns called like members of objects are written, read and filtered by', async () => {
    expect((await call('POST', '/api/objects', row('x'))).text).toBe(row('x'));
    expect((await call('PUT', '/api/objects/1', row('y'))).text).toBe(row('y'));
    for (const name of members) {
      expect((await call('PATCH', '/api/objects/1', `{"${name}":"z"}`)).status).toBe(200);
      const where = encodeURIComponent(`{"${name}":"z"}`);
      expect([name, (await call('GET', `/api/objects?where=${where}`)).text]).toEqual([
        name,
        expect.stringMatching(/^\[\{.*\}\]$/),
      ]);
    }
    expect((await call('GET', '/api/objects/1')).text).toBe(row('z'));
  });

  test('unknown columns called like members of objects are named', async () => {
    const { problem } = await call('POST', '/api/plain', `{"id":1,${members.map((name) => `"${name}":1`).join(',')}}`);
    expect(problem.errors?.map(({ path }) => path).sort()).toEqual([...members].sort());
  });
});

describe('conditions', () => {
  let tag = '';
  beforeEach(async () => {
    await app.pool.query(`truncate plain; insert into plain values (1, 'a', '2026-01-01', 'x')`);
    tag = (await call('GET', '/api/plain/1')).headers.get('etag')!;
  });

  test("the ETag depends on the row's bytes, and is the same in every answer", async () => {
    expect(tag).toMatch(/^"[0-9a-f]{32}"$/);
    await app.pool.query(`update plain set hidden = 'y'`);
    expect((await call('GET', '/api/plain/1')).headers.get('etag')).toBe(tag);
    const patched = await call('PATCH', '/api/plain/1', { note: 'b' });
    expect(patched.headers.get('etag')).not.toBe(tag);
    expect((await call('GET', '/api/plain/1')).headers.get('etag')).toBe(patched.headers.get('etag'));
    expect((await call('PUT', '/api/plain/1', { note: 'a' })).headers.get('etag')).toBe(tag);
    const made = await call('POST', '/api/plain', { id: 2 });
    expect((await call('GET', '/api/plain/2')).headers.get('etag')).toBe(made.headers.get('etag'));
  });

  test.each<[string, Record<string, string>, number]>([
    ['If-Match of the row', { 'if-match': 'TAG' }, 200],
    ['If-Match of several', { 'if-match': '"x", TAG' }, 200],
    ['If-Match of another', { 'if-match': '"x"' }, 412],
    ['a weak If-Match', { 'if-match': 'W/TAG' }, 412],
    ['If-Match *', { 'if-match': '*' }, 200],
    ['no tag', { 'if-match': 'x' }, 400],
    ['an empty If-Match', { 'if-match': '' }, 400],
    ['If-None-Match of the row', { 'if-none-match': 'TAG' }, 412],
    ['a weak If-None-Match of the row', { 'if-none-match': 'W/TAG' }, 412],
    ['If-None-Match of another', { 'if-none-match': '"x"' }, 200],
    ['If-None-Match *', { 'if-none-match': '*' }, 412],
    ['both', { 'if-match': 'TAG', 'if-none-match': '"x"' }, 200],
  ])('a write with a condition is answered correctly: %s', async (_what, given, status) => {
    const headers = Object.fromEntries(Object.entries(given).map(([name, value]) => [name, value.replace('TAG', tag)]));
    for (const [method, body, ok] of [
      ['PATCH', { note: 'a' }, 200],
      ['PUT', { note: 'a' }, 200],
      ['PATCH', { at: '2026-01-01T00:00:00+00:00' }, 200],
      ['DELETE', undefined, 204],
    ] as const) {
      const answer = await call(method, '/api/plain/1', body, headers);
      expect([method, answer.status]).toEqual([method, status === 200 ? ok : status]);
      if (status === 412) expect(answer.problem.code).toBe('PRECONDITION_FAILED');
    }
    const left = await app.pool.query('select from plain');
    expect(left.rowCount).toBe(status === 200 ? 0 : 1);
    for (const method of ['PATCH', 'DELETE'])
      expect((await call(method, '/api/plain/9', method === 'PATCH' ? { note: 'a' } : undefined, headers)).status).toBe(
        status === 400 ? 400 : 404,
      );
  });

  test.each<[Record<string, string>, number]>([
    [{ 'if-none-match': 'TAG' }, 304],
    [{ 'if-none-match': '"x", W/TAG' }, 304],
    [{ 'if-none-match': '*' }, 304],
    [{ 'if-none-match': '"x"' }, 200],
    [{ 'if-match': 'TAG' }, 200],
    [{ 'if-match': '"x"' }, 412],
  ])('GET with %j is answered with %i', async (given, status) => {
    const headers = Object.fromEntries(Object.entries(given).map(([name, value]) => [name, value.replace('TAG', tag)]));
    // with a tag, fetch would bypass caches
    const answer = await call('GET', '/api/plain/1', undefined, { 'cache-control': 'max-age=0', ...headers });
    expect(answer.status).toBe(status);
    if (status === 304) expect([answer.text, answer.headers.get('etag')]).toEqual(['', tag]);
  });

  test('a condition on POST is refused', async () => {
    expect((await call('POST', '/api/plain', { id: 2 }, { 'if-none-match': '*' })).status).toBe(400);
  });

  test('If-Match lets one of many writers succeed for each state of the row', async () => {
    const answers = await Promise.all(
      Array.from({ length: 20 }, (_, index) =>
        call('PATCH', '/api/plain/1', { note: `n${index}` }, { 'if-match': tag }),
      ),
    );
    expect(answers.filter(({ status }) => status === 200)).toHaveLength(1);
    expect(answers.filter(({ status }) => status === 412)).toHaveLength(19);
  });

  test('a read-only column may be sent with its value, and not with another one', async () => {
    const row = (await call('GET', '/api/plain/1')).text;
    expect((await call('PUT', '/api/plain/1', row)).text).toBe(row);
    const { problem } = await call('PATCH', '/api/plain/1', { note: 'b', at: '2027-01-01T00:00:00+00:00' });
    expect([problem.status, problem.errors]).toEqual([400, [{ path: 'at', message: 'is read-only' }]]);
    expect((await call('GET', '/api/plain/1')).text).toBe(row);
  });
});
