// What must stay true over REST with AUTH=jwt: reads and writes have the claims of their own request in the database, and a connection
// keeps none of them; row security of the database can use them; and a claim of another type than its column denies the policy.

import { Socket } from 'node:net';
import { afterAll, beforeAll, beforeEach, describe, expect, test } from 'vitest';
import { Catalog } from '#gateway/catalog/catalog.ts';
import type { PlankError } from '#gateway/http/errors.ts';
import { RestPool } from '#gateway/http/rest-pool.ts';
import { Rows } from '#gateway/http/rows.ts';
import { sentValues } from '#gateway/http/sent-values.ts';
import { readPage } from '#gateway/http/table-page.ts';
import { TableView } from '#gateway/http/table-view.ts';
import { Rights } from '#gateway/rights/rights.ts';
import type { DatabaseError } from '#shared/postgres/postgres.ts';
import { createLog } from '#shared/process/logger.ts';
import { testPool } from '../../support/servers/pool.ts';
import { Stage } from '../../support/stage/stage.ts';
import { secret, tokenOf } from '../../support/stage/tokens.ts';

const everything = `read => '{}', insert => '{}', update => '{}', "delete" => '{}'`;
const claims = `current_setting('request.jwt.claims', true)`;
const stage = Stage.of(
  `create table notes (id int primary key, who text default '?', seen json);
   create function sign() returns trigger language plpgsql as $$
   begin
     new.seen := ${claims}::json;
     new.who := new.seen->>'sub';
     if new.id = 13 then raise exception 'not 13'; end if;
     return new;
   end $$;
   create trigger sign before insert or update on notes for each row execute function sign();
   create table mine (id int primary key, who text, note text default '-');
   alter table mine enable row level security;
   create policy own on mine using (who = ${claims}::json->>'sub');
   create table teams (id int primary key, team int, big bigint, flag boolean, name text);
   select plank.attach('notes'), plank.attach('mine'), plank.attach('teams');
   select plank.allow('notes', 'authenticated', ${everything}), plank.allow('notes', 'anonymous', ${everything}),
          plank.allow('mine', 'authenticated', ${everything}), plank.allow('mine', 'anonymous', ${everything});
   select plank.allow('teams', 'by team', read => '{"team": {"$claim": "org.team"}}', insert => '{}'),
          plank.allow('teams', 'by big', read => '{"big": {"$claim": "big"}}'),
          plank.allow('teams', 'by flag', read => '{"flag": {"$claim": "flag"}}'),
          plank.allow('teams', 'by name', read => '{"name": {"$claim": "name"}}'),
          plank.allow('teams', 'by teams', read => '{"team": {"in": {"$claim": "teams"}}}'),
          plank.allow('teams', 'not name', read => '{"not": {"name": {"$claim": "name"}}}'),
          plank.allow('teams', 'by member', read => '{"name": {"$claim": "__proto__.name"}}'),
          plank.allow('teams', 'by method', read => '{"name": {"$claim": "toString"}}')`,
  { AUTH: 'jwt', AUTH_JWT_SECRET: secret },
);
const { sql } = stage;

/** A gateway whose role is subject to row security. It has two connections for REST. */
let restricted = '';
let role = '';
beforeAll(async () => {
  role = `rest_${new URL(stage.databaseUrl).pathname.slice(1)}`;
  const url = new URL(stage.databaseUrl);
  url.username = role;
  url.password = 'secret of tests';
  await sql(`create role ${role} login password 'secret of tests';
    grant usage on schema plank to ${role};
    grant all on all tables in schema public, plank to ${role};
    grant all on all sequences in schema public, plank to ${role};
    grant execute on all functions in schema plank to ${role}`);
  const gateway = await stage.embedded.startGateway({ DATABASE_URL: url.href, POOL_SIZE: '2' });
  restricted = `http://127.0.0.1:${gateway.port}`;
});
afterAll(() => sql(`drop owned by ${role}; drop role ${role}`));

beforeEach(() =>
  sql(`truncate notes, mine, teams;
       insert into mine values (1, 'ada'), (2, 'bob');
       insert into teams values (1, 5, 9007199254740993, true, 'x'), (2, 6, 6, false, 'y'), (3, null, null, null, null)`),
);

const ada = tokenOf();
const bob = tokenOf({ sub: 'bob' });

async function ask(
  base: string,
  method: string,
  path: string,
  { token = null, body }: { token?: string | null; body?: object } = {},
) {
  const response = await fetch(base + path, {
    method,
    headers: {
      ...(token !== null && { authorization: `Bearer ${token}` }),
      ...(body && { 'content-type': 'application/json' }),
    },
    ...(body && { body: JSON.stringify(body) }),
    signal: AbortSignal.timeout(5_000),
  });
  const text = await response.text();
  return { status: response.status, body: (text === '' ? null : JSON.parse(text)) as never };
}

const call = (method: string, path: string, asked: { token?: string | null; body?: object } = {}) =>
  ask(stage.embedded.url, method, path, asked);

describe('request.jwt.claims', () => {
  test('are those of each request, whatever the requests before it were and how they ended', async () => {
    for (let round = 0; round < 3; round++) {
      await sql('truncate notes');
      const asked: [string, string, string | null, object | undefined, number][] = [
        ['POST', '/api/notes', ada, { id: 1 }, 201],
        ['POST', '/api/notes', bob, { id: 1 }, 409],
        ['POST', '/api/notes', bob, { id: 13 }, 400],
        ['POST', '/api/notes', null, { id: 2 }, 201],
        ['PATCH', '/api/notes/1', bob, { id: 3 }, 200],
        ['GET', '/api/notes/9', bob, undefined, 404],
        ['PATCH', '/api/notes/2', ada, { id: 4 }, 200],
        ['DELETE', '/api/notes/9', ada, undefined, 404],
        ['POST', '/api/notes', null, { id: 5 }, 201],
      ];
      for (const [method, path, token, body, status] of asked)
        expect([path, (await ask(restricted, method, path, { token, ...(body && { body }) })).status]).toEqual([
          path,
          status,
        ]);
      const { rows } = await sql('select id, who from notes order by id');
      expect(rows).toEqual([
        { id: 3, who: 'bob' },
        { id: 4, who: 'ada' },
        { id: 5, who: null },
      ]);
    }
  });

  test('of requests at once are not mixed up', async () => {
    const users = Array.from({ length: 10 }, (_, i) => `user ${i}`);
    await Promise.all(
      users.map(async (sub, id) => {
        const token = tokenOf({ sub });
        expect((await ask(restricted, 'POST', '/api/notes', { token, body: { id: id + 100 } })).status).toBe(201);
        expect((await ask(restricted, 'GET', '/api/mine', { token })).body).toEqual([]);
      }),
    );
    const { rows } = await sql('select who from notes order by id');
    expect(rows.map(({ who }) => who as string)).toEqual(users);
  });
});

test('a connection keeps no claims, however a request ends', async () => {
  const pool = testPool(stage.databaseUrl, 1);
  try {
    const catalog = new Catalog(pool);
    await catalog.begin();
    const pid: number = (await pool.query('select pg_backend_pid() as pid')).rows[0].pid;
    const rights = new Rights({ catalog, log: createLog('silent', 'test', 'test') });
    const viewer = { user: 'ada', role: 'authenticated', claims: { sub: 'ada' } };
    const view = TableView.find('notes', viewer, { catalog, rights });
    const queries = new RestPool(pool).for(new Socket());
    const rows = new Rows(queries, view);
    const create = (id: number) => rows.create(sentValues(view, 'create', { id }));
    const page = (text: string) =>
      readPage(queries, 'notes', { text, values: [], limit: 1, claims: '{"sub":"ada"}' }).then((read) => read.rows);
    const seen = `select ${claims}::json->>'sub' as row, array['1'] as key`;
    for (const [how, work, expected] of [
      ['a write', () => create(1).then(({ key }) => key), ['1']],
      ['a conflict', () => create(1).catch(({ code }: PlankError) => code), 'CONFLICT'],
      ['an error of a trigger', () => create(13).catch(({ code }: PlankError) => code), 'INVALID'],
      ['a row', () => rows.read(['1']).then((row) => (JSON.parse(row) as { who: string }).who), 'ada'],
      ['no row', () => rows.read(['9']).catch(({ code }: PlankError) => code), 'NOT_FOUND'],
      ['a page', () => page(seen), [{ row: 'ada', key: ['1'] }]],
      ['a page that fails', () => page('select 1 / 0').catch(({ code }: DatabaseError) => code), '22012'],
    ] as const) {
      expect([how, await work()]).toEqual([how, expected]);
      const { rows: left } = await pool.query(`select coalesce(${claims}, '') as claims, pg_backend_pid() as pid`);
      expect([how, left]).toEqual([how, [{ claims: '', pid }]]);
    }
  } finally {
    await pool.end();
  }
});

describe('row security of the database', () => {
  const idsOf = async (token: string | null, where = '') =>
    ((await ask(restricted, 'GET', `/api/mine${where}`, { token })).body as { id: number }[]).map(({ id }) => id);

  test('decides what is read', async () => {
    expect([await idsOf(ada), await idsOf(bob), await idsOf(null)]).toEqual([[1], [2], []]);
    expect(await idsOf(ada, '?where={"who":"bob"}')).toEqual([]);
    expect((await ask(restricted, 'GET', '/api/mine/1', { token: ada })).body).toEqual({
      id: 1,
      who: 'ada',
      note: '-',
    });
    for (const id of [2, 9]) expect((await ask(restricted, 'GET', `/api/mine/${id}`, { token: ada })).status).toBe(404);
  });

  test('decides what is written', async () => {
    for (const [method, path, body, status] of [
      ['PATCH', '/api/mine/2', { note: 'x' }, 404],
      ['DELETE', '/api/mine/2', undefined, 404],
      ['POST', '/api/mine', { id: 3, who: 'bob' }, 403],
      ['PATCH', '/api/mine/1', { who: 'bob' }, 403],
      ['PATCH', '/api/mine/1', { note: 'x' }, 200],
      ['POST', '/api/mine', { id: 4, who: 'ada' }, 201],
      ['DELETE', '/api/mine/4', undefined, 204],
    ] as const)
      expect([path, body, (await ask(restricted, method, path, { token: ada, ...(body && { body }) })).status]).toEqual(
        [path, body, status],
      );
    const { rows } = await sql('select * from mine order by id');
    expect(rows).toEqual([
      { id: 1, who: 'ada', note: 'x' },
      { id: 2, who: 'bob', note: '-' },
    ]);
  });
});

describe('a claim of another type than its column denies the policy', () => {
  test.each<[string, object, number[] | 404]>([
    ['by team', { org: { team: 5 } }, [1]],
    ['by team', { org: { team: 7 } }, []],
    ['by team', { 'org.team': 6 }, [2]],
    ['by team', {}, 404],
    ['by team', { org: {} }, 404],
    ['by team', { org: null }, 404],
    ['by team', { org: 'team' }, 404],
    ['by team', { org: { team: '5' } }, 404],
    ['by team', { org: { team: 5.5 } }, 404],
    ['by team', { org: { team: 2 ** 40 } }, 404],
    ['by team', { org: { team: null } }, 404],
    ['by team', { org: { team: true } }, 404],
    ['by team', { org: { team: [5] } }, 404],
    ['by team', { org: { team: { gt: 0 } } }, 404],
    ['by team', { org: { team: { in: [5] } } }, 404],
    ['by team', { org: { team: '5 or true' } }, 404],
    ['by big', { big: '9007199254740993' }, [1]],
    ['by big', { big: 6 }, [2]],
    // JavaScript has rounded the number, and cannot say to what
    ['by big', { big: 9007199254740992 }, 404],
    ['by big', { big: '' }, 404],
    ['by flag', { flag: false }, [2]],
    ['by flag', { flag: 'false' }, 404],
    ['by flag', { flag: 0 }, 404],
    ['by name', { name: 'x' }, [1]],
    ['by name', { name: "x' or 'a' = 'a" }, []],
    ['by name', { name: 5 }, 404],
    ['by name', { name: ['x'] }, 404],
    ['by name', { name: { $claim: 'sub' } }, 404],
    ['by name', { name: null }, 404],
    ['by teams', { teams: [5, 6] }, [1, 2]],
    ['by teams', { teams: [] }, []],
    ['by teams', { teams: [5, null] }, 404],
    ['by teams', { teams: [5, '6'] }, 404],
    ['by teams', { teams: 5 }, 404],
    ['by teams', { teams: { 0: 5, length: 1 } }, 404],
    ['by teams', { teams: { $from: 'teams', select: 'team' } }, 404],
    ['not name', { name: 'x' }, [2]],
    ['not name', {}, 404],
    ['not name', { name: 5 }, 404],
    ['by member', {}, 404],
    ['by method', {}, 404],
  ])('%s, %j', async (named, own, expected) => {
    const token = tokenOf({ role: named, ...own });
    const { status, body } = await call('GET', '/api/teams', { token });
    if (expected === 404) {
      expect([status, body]).toMatchObject([404, { code: 'NOT_FOUND', detail: 'There is no table teams here' }]);
      for (const [method, path] of [
        ['GET', '/api/teams/1'],
        ['POST', '/api/teams'],
        ['PATCH', '/api/teams/1'],
        ['DELETE', '/api/teams/1'],
      ] as const)
        expect([method, (await call(method, path, { token })).status]).toEqual([method, 404]);
    } else {
      expect([status, (body as { id: number }[]).map(({ id }) => id)]).toEqual([200, expected]);
    }
  });
});
