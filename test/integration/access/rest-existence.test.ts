// What must stay true over REST with AUTH=jwt: a row or a table that a client may not see is answered as one that does not exist, to
// the byte, whatever the method, the conditions, the body and the notation of the path; and no refusal says whether another row exists.

import { type IncomingHttpHeaders, request } from 'node:http';
import { beforeEach, describe, expect, test } from 'vitest';
import { Stage } from '../../support/stage/stage.ts';
import { secret, tokenOf } from '../../support/stage/tokens.ts';

const own = `'{"owner": {"$claim": "sub"}}'`;
const ofTenant = `'{"tenant": {"$claim": "tenant"}}'`;
const stage = Stage.of(
  `create type mood as enum ('calm', 'wild');
   create table docs (id int primary key, owner text not null, title text unique, m mood, size int check (size > 0),
                      made int generated always as (id * 2) stored);
   create table hidden (id int primary key, owner text);
   create table orders (tenant text, id int, note text, primary key (tenant, id));
   create table lines (tenant text, id int, "order" int, primary key (tenant, id),
                       foreign key (tenant, "order") references orders);
   create domain filled as text not null;
   create type pair as (a int, b text);
   create table odd (tenant text, id int, f filled default '-', m mood[], n numeric, real real, at timestamptz, j jsonb,
                     list int[], p pair, bytes bytea, r int4range, primary key (tenant, id));
   create table plain (tenant text, id int, m mood[], n numeric, real real, at timestamptz, j jsonb, list int[], p pair,
                       bytes bytea, r int4range, primary key (tenant, id));
   select plank.attach('odd'), plank.attach('plain');
   select plank.allow('odd', 'authenticated', read => ${ofTenant}, insert => ${ofTenant}, update => ${ofTenant}),
          plank.allow('plain', 'authenticated', read => ${ofTenant}, insert => ${ofTenant}, update => ${ofTenant});
   select plank.attach('docs'), plank.attach('hidden'), plank.attach('orders'), plank.attach('lines');
   select plank.allow('docs', 'authenticated', read => ${own}, insert => ${own}, update => ${own}, "delete" => ${own});
   select plank.allow('hidden', 'admin', read => '{}', insert => '{}', update => '{}', "delete" => '{}');
   select plank.allow('orders', 'authenticated', read => ${ofTenant}, insert => ${ofTenant}, update => ${ofTenant});
   select plank.allow('lines', 'authenticated', read => ${ofTenant}, insert => ${ofTenant}, update => ${ofTenant})`,
  { AUTH: 'jwt', AUTH_JWT_SECRET: secret },
);
const { sql } = stage;

const ada = tokenOf({ sub: 'ada', tenant: 'a' });
const bob = tokenOf({ sub: 'bob', tenant: 'b' });
const bobsRow = { id: 2, owner: 'bob', title: 'of bob', m: 'wild', size: 7, made: 4 };

beforeEach(async () => {
  await sql(`truncate docs, hidden, orders, lines, odd, plain;
    insert into odd values ('a', 1), ('b', 1);
    insert into plain values ('a', 1), ('b', 1);
    insert into docs values (1, 'ada', 'of ada', 'calm', 5), (2, 'bob', 'of bob', 'wild', 7);
    insert into hidden values (1, 'ada'), (2, 'bob');
    insert into orders values ('a', 1, 'of ada'), ('a', 2, 'of ada'), ('b', 1, 'of bob');
    insert into lines values ('a', 1, 1)`);
});

interface Asked {
  token?: string | null;
  body?: object | string;
  headers?: Record<string, string>;
}

interface Answer {
  status: number;
  headers: IncomingHttpHeaders;
  text: string;
}

/** Sends the path as it is: fetch would normalise it. */
function ask(method: string, path: string, { token = ada, body, headers = {} }: Asked = {}): Promise<Answer> {
  const text = typeof body === 'object' ? JSON.stringify(body) : body;
  return new Promise((resolve, reject) => {
    const sent = request(stage.embedded.url, {
      method,
      path,
      agent: false,
      signal: AbortSignal.timeout(5_000),
      headers: {
        ...(token !== null && { authorization: `Bearer ${token}` }),
        ...(text !== undefined && { 'content-type': 'application/json' }),
        ...headers,
      },
    });
    sent.on('error', reject);
    sent.on('response', (response) => {
      const parts: Buffer[] = [];
      response.on('data', (part: Buffer) => void parts.push(part));
      response.on('error', reject);
      response.on('end', () => {
        const { date: _date, ...rest } = response.headers;
        // of an error, it is a hash of the text
        if (response.statusCode! >= 400) delete rest.etag;
        resolve({ status: response.statusCode!, headers: rest, text: Buffer.concat(parts).toString() });
      });
    });
    sent.end(text);
  });
}

const problemOf = ({ text }: Answer) => JSON.parse(text) as { code: string; detail: string };
const rowsOf = async (table: string) => (await sql(`select * from ${table} order by 1, 2`)).rows as object[];

describe('a row of somebody else is answered as one that does not exist', () => {
  const change = { title: 'taken' };
  const whole = { owner: 'ada', title: 'taken' };
  test.each<[string, Asked?]>([
    ['GET'],
    ['HEAD'],
    ['DELETE'],
    ['GET', { headers: { 'if-none-match': '*' } }],
    ['GET', { headers: { 'if-match': '"0123"' } }],
    ['GET', { headers: { 'if-match': 'no tag' } }],
    ['DELETE', { headers: { 'if-match': '"0123"' } }],
    ['DELETE', { headers: { 'if-match': '*' } }],
    ['DELETE', { headers: { 'if-none-match': '*' } }],
    ['PATCH', { body: change }],
    ['PATCH', { body: change, headers: { 'if-match': '"0123"' } }],
    ['PATCH', { body: change, headers: { 'if-match': '*' } }],
    ['PATCH', { body: change, headers: { 'if-none-match': '*' } }],
    ['PATCH', { body: { owner: 'ada' } }],
    ['PATCH', { body: { title: 'of ada' } }],
    ['PATCH', { body: { size: -1 } }],
    ['PATCH', { body: { id: 1 } }],
    ['PATCH', { body: { made: 4 } }],
    ['PATCH', { body: { made: 5 } }],
    ['PATCH', { body: bobsRow }],
    ['PATCH', { body: { m: 'sad' } }],
    ['PATCH', { body: { nosuch: 1 } }],
    ['PATCH', { body: {} }],
    ['PATCH', { body: '{' }],
    ['PUT', { body: whole }],
    ['PUT', { body: whole, headers: { 'if-match': '"0123"' } }],
    ['PUT', { body: whole, headers: { 'if-match': '*' } }],
    ['PUT', { body: bobsRow }],
    ['PUT', { body: { ...bobsRow, made: 5 } }],
    ['POST', { body: whole }],
    ['OPTIONS'],
  ])('%s %j', async (method, asked) => {
    const foreign = await ask(method, '/api/docs/2', asked);
    const absent = await ask(method, '/api/docs/9', asked);
    expect(foreign).toEqual(absent);
    expect(foreign.status).not.toBe(200);
    expect(await rowsOf('docs')).toContainEqual(bobsRow);
  });

  test.each(['GET', 'PATCH', 'PUT', 'DELETE'])('%s with its right entity tag', async (method) => {
    const tag = (await ask('GET', '/api/docs/2', { token: bob })).headers.etag!;
    expect(tag).toMatch(/^"/);
    const body = method === 'PATCH' || method === 'PUT' ? { owner: 'ada', title: 'taken' } : undefined;
    for (const header of ['if-match', 'if-none-match']) {
      const asked = { ...(body && { body }), headers: { [header]: tag } };
      const foreign = await ask(method, '/api/docs/2', asked);
      expect(foreign).toEqual(await ask(method, '/api/docs/9', asked));
      expect([header, foreign.status]).toEqual([header, 404]);
    }
    expect(await rowsOf('docs')).toContainEqual(bobsRow);
  });

  test('its owner still has it', async () => {
    expect(JSON.parse((await ask('GET', '/api/docs/2', { token: bob })).text)).toEqual(bobsRow);
    expect((await ask('PATCH', '/api/docs/2', { token: bob, body: change })).status).toBe(200);
    expect((await ask('DELETE', '/api/docs/2', { token: bob })).status).toBe(204);
  });
});

describe('a table without rights is answered as one that does not exist', () => {
  const body = { id: 5, owner: 'ada' };
  test.each<[string, string, Asked?]>([
    ['GET', ''],
    ['HEAD', ''],
    ['OPTIONS', ''],
    ['GET', '?limit=0'],
    ['GET', '?where={"nosuch":1}'],
    ['GET', '?where={"owner":"bob"}'],
    ['GET', '?cursor=x'],
    ['POST', '', { body }],
    ['POST', '', { body: { id: 1, owner: 'ada' } }],
    ['POST', '', { body: '{' }],
    ['POST', '', { body: 'x', headers: { 'content-type': 'text/plain' } }],
    ['POST', '', { body: `{"owner":"${'x'.repeat(300_000)}"}` }],
    ['PUT', '', { body }],
    ['DELETE', ''],
    ['GET', '/1'],
    ['HEAD', '/1'],
    ['OPTIONS', '/1'],
    ['GET', '/x'],
    ['GET', '/1,2'],
    ['GET', '/%zz'],
    ['PUT', '/1', { body }],
    ['PATCH', '/1', { body }],
    ['PATCH', '/1', { body: { nosuch: 1 } }],
    ['DELETE', '/1'],
    ['DELETE', '/1', { headers: { 'if-match': '*' } }],
    ['POST', '/1', { body }],
    ['GET', '/1/2'],
    ['GET', '/changes'],
    ['HEAD', '/changes'],
    ['POST', '/changes', { body }],
    ['GET', '/changes?snapshot=true'],
    ['GET', '/=changes'],
  ])('%s …%s %#', async (method, rest, asked) => {
    for (const token of [ada, null]) {
      const one = await ask(method, `/api/hidden${rest}`, { ...asked, token });
      // as long as the other name, so that the lengths of the answers are equal
      const other = await ask(method, `/api/nosuch${rest}`, { ...asked, token });
      expect({ ...one, text: one.text.replaceAll('hidden', 'nosuch') }).toEqual(other);
      expect(one.status).not.toBe(200);
    }
    expect(await rowsOf('hidden')).toEqual([
      { id: 1, owner: 'ada' },
      { id: 2, owner: 'bob' },
    ]);
  });

  test('who has a policy of another role, sees it', async () => {
    const admin = tokenOf({ role: 'admin' });
    expect(JSON.parse((await ask('GET', '/api/hidden', { token: admin })).text)).toHaveLength(2);
  });

  test('the list of tables', async () => {
    const names = async (token: string | null) => {
      const answer = await ask('GET', '/try/tables.json', { token });
      return (JSON.parse(answer.text) as { name: string }[]).map(({ name }) => name);
    };
    expect(await names(ada)).toEqual(['docs', 'lines', 'odd', 'orders', 'plain']);
    expect(await names(tokenOf({ sub: 'eve' }))).toEqual(['docs']);
    expect(await names(null)).toEqual([]);
  });
});

describe('no notation of a path gets around a policy', () => {
  const dot = ['.', '%2e', '%2E'];
  const toHidden = [
    ...dot.flatMap((one) => [`/api/${one}/hidden`, `/api/docs/${one}${one}/hidden`, `/${one}/api/hidden`]),
    ...['//', '/%2f', '%2f', '%5c', '\\', ';/', '/;/'].flatMap((slash) => [`/api${slash}hidden`, `${slash}api/hidden`]),
    ...['/', '//', '%2f', '%00', '%20', ';x=1', '?', '#', '.', '.json', '%', '%2e', '/.', '/..', '/%2e%2e'].map(
      (end) => `/api/hidden${end}`,
    ),
    ...['HIDDEN', 'Hidden', '%68idden', '%68%69%64%64%65%6e', '=hidden', '==hidden', '%3dhidden', '%2568idden'].map(
      (name) => `/api/${name}`,
    ),
    ...['public.hidden', 'public%2ehidden', '"hidden"', '%22hidden%22', 'hidden,docs', 'docs,hidden', 'hıdden'].map(
      (name) => `/api/${encodeURI(decodeURI(name))}`,
    ),
    '/API/hidden',
    '/Api/Hidden/',
    'http://elsewhere.example/api/hidden',
    '/api/docs%2f..%2fhidden',
    '/api/docs/1/../../hidden',
  ];
  const toBob = [
    '/2/',
    '//2',
    '/2%2f',
    '/./2',
    '/%2e/2',
    '/1/../2',
    '/1%2f..%2f2',
    '/%32',
    '/=2',
    '/%3d2',
    '/02',
    '/+2',
  ]
    .concat(['/2.0', '/%202', '/2%00', '/2?', '/2;x', '/2,2', '/1,2', '/2%2c2', '/2e0', '/0x2', '/%EF%BC%92'])
    .map((rest) => `/api/docs${rest}`);

  test.each([...toHidden, ...toBob])('%s', async (path) => {
    for (const token of [ada, null])
      for (const [method, body] of [['GET'], ['DELETE'], ['PATCH', { owner: 'ada' }], ['HEAD']] as const) {
        const answer = await ask(method, path, { token, ...(body && { body }) });
        expect([method, answer.status, answer.text]).toEqual([
          method,
          expect.toSatisfy((status: number) => [400, 404, 405].includes(status)),
          expect.not.stringContaining('bob'),
        ]);
      }
    expect(await rowsOf('docs')).toHaveLength(2);
    expect(await rowsOf('docs')).toContainEqual(bobsRow);
    expect(await rowsOf('hidden')).toHaveLength(2);
  });

  test.each(['/api/docs', '/api/docs/', '/API/docs', '/api/%64ocs', '/api/=docs', '/api/docs?', '/api/docs?limit=9'])(
    'a table with rights, %s: only the rows of the policy',
    async (path) => {
      const { status, text } = await ask('GET', path);
      expect(status).toBe(200);
      expect((JSON.parse(text) as { owner: string }[]).map(({ owner }) => owner)).toEqual(['ada']);
    },
  );
});

describe('a refusal does not say whether another row exists', () => {
  const types = {
    m: ['calm', null],
    n: '1e3',
    real: 'NaN',
    at: '2026-01-31T12:00:00Z',
    j: { a: [null, '"'] },
    list: [[1], [2]],
    p: { a: 1, b: 'x' },
    bytes: String.raw`\x00ff`,
    r: '[1,5)',
  };
  test.each<[string, string, string, object, object]>([
    ['a key', 'POST', '/api/orders', { tenant: 'b', id: 1 }, { tenant: 'b', id: 9 }],
    ['a row referred to', 'POST', '/api/lines', { tenant: 'b', id: 5, order: 1 }, { tenant: 'b', id: 5, order: 9 }],
    ['a new key', 'PATCH', '/api/orders/a,2', { tenant: 'b', id: 1 }, { tenant: 'b', id: 9 }],
    ['a new row referred to', 'PATCH', '/api/lines/a,1', { tenant: 'b', order: 1 }, { tenant: 'b', order: 9 }],
    ['a key beside a default', 'POST', '/api/odd', { tenant: 'b', id: 1 }, { tenant: 'b', id: 9 }],
    [
      'a key beside other types',
      'POST',
      '/api/plain',
      { tenant: 'b', id: 1, ...types },
      { tenant: 'b', id: 9, ...types },
    ],
  ])('%s that the client may not write', async (_, method, path, taken, free) => {
    const [orders, lines] = [await rowsOf('orders'), await rowsOf('lines')];
    const one = await ask(method, path, { body: taken });
    const other = await ask(method, path, { body: free });
    expect(one).toEqual(other);
    expect([one.status, problemOf(one).code]).toEqual([403, 'FORBIDDEN']);
    expect([await rowsOf('orders'), await rowsOf('lines')]).toEqual([orders, lines]);
  });

  test.each<[string, string, string, object, number]>([
    ['a key', 'POST', '/api/orders', { tenant: 'a', id: 1 }, 409],
    ['a row referred to', 'POST', '/api/lines', { tenant: 'a', id: 5, order: 9 }, 400],
    ['a new key', 'PATCH', '/api/orders/a,2', { id: 1 }, 409],
    ['a key beside other types', 'POST', '/api/plain', { tenant: 'a', id: 1, ...types }, 409],
  ])('%s that the client may write is a conflict, as ever', async (_, method, path, body, status) => {
    expect((await ask(method, path, { body })).status).toBe(status);
  });
});
