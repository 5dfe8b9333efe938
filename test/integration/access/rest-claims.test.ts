// AUTH=jwt over REST: triggers and row security of the database read the claims of the client (request.jwt.claims). What must stay true:
// a request never has the claims of another one, however that one ended.

import { connect } from 'node:net';
import { afterAll, beforeAll, beforeEach, expect, test } from 'vitest';
import type { Gateway } from '#gateway/gateway.ts';
import { allow, callsOf } from '../../support/stage/policies.ts';
import { Stage } from '../../support/stage/stage.ts';
import { claimsOf, hmacToken, secret, tokenOf } from '../../support/stage/tokens.ts';
import { until } from '../../support/wait.ts';

const any = { read: {}, insert: {}, update: {}, delete: {} };
const stage = Stage.of(
  `create table todo (id int primary key, status text);
   create table signed (id int primary key, note text);
   create function sign() returns trigger language plpgsql as $$
     begin new.note := current_setting('request.jwt.claims', true); return new; end $$;
   create trigger sign before insert or update on signed for each row execute function sign();
   create table ruled (id int primary key, note text);
   create rule ruled as on update to ruled where new.id < 0 do instead nothing;
   create trigger sign before update on ruled for each row execute function sign();
   create table secured (id int primary key, owner text, n int);
   alter table secured enable row level security;
   create table slow (id int primary key);
   create function sleep() returns trigger language plpgsql as $$
     begin perform pg_sleep(30); return new; end $$;
   create trigger sleep before insert on slow for each row execute function sleep();
   create policy own on secured
     using (coalesce(current_setting('request.jwt.claims', true), '') = ''
            or owner = current_setting('request.jwt.claims', true)::json->>'sub')
     with check (owner = current_setting('request.jwt.claims', true)::json->>'sub');
   ${['todo', 'signed', 'ruled', 'secured', 'slow'].map((name) => `select plank.attach('${name}');`).join('\n')}
   ${['signed', 'ruled', 'secured', 'slow'].map((name) => allow(name, any)).join('\n')}
   ${allow('signed', any, 'anonymous')} ${allow('secured', any, 'anonymous')}`,
  { AUTH: 'jwt', AUTH_JWT_SECRET: secret },
);
const { sql } = stage;
let limited: Gateway;
let role: string;
const call = callsOf(stage, () => `http://127.0.0.1:${limited.port}`);

beforeAll(async () => {
  role = `plank_claims_${new URL(stage.databaseUrl).pathname.slice(1)}`;
  await sql(`create role ${role}; grant usage on schema public, plank to ${role};
    grant all on all tables in schema public, plank to ${role}; grant execute on all functions in schema plank to ${role}`);
  const url = new URL(stage.databaseUrl);
  url.searchParams.set('options', `-c role=${role}`);
  limited = await stage.embedded.startGateway({ DATABASE_URL: url.href });
});
afterAll(() => sql(`drop owned by ${role}; drop role ${role}`));

beforeEach(() =>
  sql(`truncate signed, ruled, secured, slow; insert into signed values (1); insert into ruled values (1);
    insert into secured values (1, 'ada', 1), (2, 'bob', 2)`),
);

/** Reads of several clients at once, on all connections of the gateway's pool, see the rows of their own claims. */
async function requireOwnClaims(): Promise<void> {
  await sql(`truncate secured; insert into secured values (1, 'ada', 1), (2, 'bob', 2)`);
  const expected = { ada: [1], bob: [2], eve: [], anonymous: [] };
  const users = Array.from({ length: 10 }, () => Object.entries(expected)).flat();
  const reads = await Promise.all(
    users.map(async ([user]) => {
      const { body } = await call(user, 'GET', '/api/secured');
      return [user, (body as unknown as { id: number }[]).map(({ id }) => id)];
    }),
  );
  expect(reads).toEqual(users);
}

test('a write has all claims of the token; without a token there are none', async () => {
  const claims = claimsOf({ org: { id: 7, 'it\'s "\\"': ['ü', null] }, role: 'authenticated' });
  const token = hmacToken(claims);
  for (const [method, path, body] of [
    ['PATCH', '/api/signed/1', { note: 'x' }],
    ['PUT', '/api/signed/1', {}],
    ['POST', '/api/signed', { id: 2 }],
    // a rule forbids RETURNING, so that the statement is run in another way
    ['PATCH', '/api/ruled/1', { note: 'x' }],
  ] as const) {
    const answer = await call(token, method, path, body);
    expect(JSON.parse(answer.body.note)).toEqual(claims);
  }
  expect((await call('anonymous', 'POST', '/api/signed', { id: 3 })).body.note).toBe('{}');
  await requireOwnClaims();
});

test('no claim is left for others after writes of many clients, done and refused', async () => {
  const users = ['ada', 'bob', 'eve', 'anonymous', tokenOf({ role: 'other' })];
  await Promise.all(
    Array.from({ length: 60 }, (_, i) => {
      const who = users[i % users.length]!;
      const id = i % 3;
      if (i % 4 === 0) return call(who, 'POST', '/api/secured', { id: i, owner: i % 8 === 0 ? who : 'bob' });
      if (i % 4 === 1) return call(who, 'PATCH', `/api/secured/${id}`, { n: i });
      if (i % 4 === 2) return call(who, 'PATCH', `/api/secured/${id}`, { n: 3_000_000_000 });
      return call(who, 'DELETE', `/api/secured/${id}`, undefined, { 'if-match': '"x"' });
    }),
  );
  await requireOwnClaims();
});

test('no claim is left for others of a client that leaves in the middle of a write', async () => {
  const asleep = async () =>
    (await sql(`select from pg_stat_activity where wait_event = 'PgSleep' and query like 'insert%slow%'`)).rowCount;
  for (let i = 0; i < 3; i++) {
    const socket = connect(limited.port, '127.0.0.1');
    const body = `{"id":${i}}`;
    socket.write(
      `POST /api/slow HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer ${tokenOf()}\r\nContent-Type: application/json\r\n` +
        `Content-Length: ${body.length}\r\n\r\n${body}`,
    );
    await until('the write is under way', async () => (await asleep()) === 1, 5_000);
    socket.destroy();
    await until('the write is given up', async () => (await asleep()) === 0, 5_000);
  }
  expect((await sql('select from slow')).rowCount).toBe(0);
  await requireOwnClaims();
});
