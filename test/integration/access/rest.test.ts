// AUTH=jwt over REST: what a client reads of rows, columns and tables, and which tables exist for it. What must stay true: a row or a table
// that a client may not see is answered like one that does not exist, byte for byte.

import { once } from 'node:events';
import { type IncomingMessage, request } from 'node:http';
import { text as textOf } from 'node:stream/consumers';
import { describe, expect, test } from 'vitest';
import { type Answer, allow, callsOf, own } from '../../support/stage/policies.ts';
import { Stage } from '../../support/stage/stage.ts';
import { claimsOf, hmacToken, now, secret, tokenOf, unsigned } from '../../support/stage/tokens.ts';

const odd = 'q" \\ü';
const teams = { team: { in: { $from: 'members', select: 'team', where: { who: { $claim: 'sub' } } } } };
const stage = Stage.of(
  `create table todo (id int primary key, status text);
   create table orders (id int primary key, owner text, total numeric(10,2), cost int default 7);
   create table closed (id int primary key, owner text);
   create table inbox (id int primary key, body text not null, at timestamptz);
   create table posts (id int primary key, published bool not null, body text);
   create table team_docs (id int primary key, team int);
   create table members (who text, team int, primary key (who, team));
   create table tenants (id int primary key, org int not null);
   create table tags (id int primary key, tag text);
   create table broken (id int primary key, owner text, note text);
   create table pairs (a text, b int, owner text, hidden text, primary key (b, a));
   create table big (id int primary key, owner text, body text, hidden text);
   create table typed (id int primary key, owner text, n numeric, f float8, at timestamptz, d jsonb, j json, a int[],
     "q"" \\ü" text, hidden json);
   ${'todo orders closed inbox posts team_docs members tenants tags broken pairs big typed'
     .split(' ')
     .map((name) => `select plank.attach('${name}');`)
     .join('\n')}
   select plank.configure(row_bytes => 65536);
   ${allow('orders', { read: own, reads: ['owner', 'total'], writes: ['total', 'cost'], update: own })}
   ${allow('orders', { read: {} }, 'auditor')}
   ${allow('inbox', { insert: {}, writes: ['id', 'body'] })}
   ${allow('posts', { read: { published: true } }, 'anonymous')}
   ${allow('team_docs', { read: teams })}
   ${allow('tenants', { read: { org: { $claim: 'org.id' } } })}
   ${allow('tags', { read: { tag: { in: { $claim: 'tags' } } } })}
   ${allow('broken', { read: { note: 'x' }, insert: {} })}
   ${allow('pairs', { read: own, reads: ['owner'] })}
   ${allow('big', { read: own, reads: ['owner', 'body'] })}
   ${allow('typed', { read: own, reads: ['owner', 'n', 'f', 'at', 'd', 'j', 'a', odd] })}
   ${allow('typed', { read: {} }, 'auditor')}
   insert into orders values (1, 'ada', 1.50), (2, 'bob', 2), (3, 'ada', 3), (4, null, 4);
   insert into posts values (1, true, 'public'), (2, false, 'draft');
   insert into team_docs values (1, 10), (2, 20), (3, null);
   insert into members values ('ada', 10), ('bob', 20);
   insert into tenants values (1, 7), (2, 8);
   insert into tags values (1, 'a'), (2, 'b'), (3, null);
   insert into pairs values ('x,y', 1, 'ada', 'h'), ('z', 2, 'bob', 'h');
   insert into big values (1, 'ada', 'x', repeat('h', 100000)), (2, 'ada', repeat('b', 100000), 'h'),
     (3, 'ada', repeat('b', 20000), repeat('h', 100000)), (4, 'ada', 'y', 'h');
   insert into typed values (1, 'ada', 1.500, 'Infinity', '2026-01-31T12:00:00.123456Z', '{"b": 1, "a": [1.0]}',
     '{ "x" :  "\\u0000", "x": 1e5 }', '{{1,2},{3,null}}', E'"\\n\\\\', '{"s": "\\u0000"}')`,
  { AUTH: 'jwt', AUTH_JWT_SECRET: secret },
);
const { sql } = stage;
const call = callsOf(stage);
const auditor = tokenOf({ role: 'auditor' });
const where = (filter: unknown) => encodeURIComponent(JSON.stringify(filter));
const ids = ({ body }: Answer) => (body as { id: number }[]).map(({ id }) => id);

/** What a client learns from an answer. */
const told = ({ status, headers, text }: Answer) => ({
  status,
  text,
  headers: [...headers].filter(([name]) => !['date', 'etag', 'content-length'].includes(name)),
});

describe('reads', () => {
  test('a list has the rows and the columns of the policy', async () => {
    const answer = await call('ada', 'GET', '/api/orders');
    expect(answer.text).toBe('[{"id":1,"owner":"ada","total":1.50},{"id":3,"owner":"ada","total":3.00}]');
    const bobs = await call('bob', 'GET', '/api/orders');
    expect(bobs.text).toBe('[{"id":2,"owner":"bob","total":2.00}]');
    const every = await call(auditor, 'GET', '/api/orders?limit=1');
    expect(every.text).toBe('[{"id":1,"owner":"ada","total":1.50,"cost":7}]');
  });

  test('a row has the columns of the policy, and its tag is made of them', async () => {
    const answer = await call('ada', 'GET', '/api/orders/1');
    expect(answer.text).toBe('{"id":1,"owner":"ada","total":1.50}');
    const tag = answer.headers.get('etag')!;
    // with a tag, fetch would bypass caches
    const ifOther = { 'cache-control': 'max-age=0', 'if-none-match': tag };
    await sql('update orders set cost = cost + 1 where id = 1');
    expect((await call('ada', 'GET', '/api/orders/1', undefined, ifOther)).status).toBe(304);
    const head = await call('ada', 'HEAD', '/api/orders/1');
    expect([head.status, head.headers.get('etag'), head.headers.get('content-length')]).toEqual([200, tag, '35']);
    await sql('update orders set total = 9 where id = 1');
    expect((await call('ada', 'GET', '/api/orders/1', undefined, ifOther)).status).toBe(200);
    await sql('update orders set total = 1.5, cost = 7 where id = 1');
  });

  test('the rows of others are those that do not exist', async () => {
    for (const method of ['GET', 'HEAD'])
      for (const headers of [{}, { 'if-match': '"x"' }, { 'if-match': '*' }, { 'if-none-match': '*' }]) {
        const missing = told(await call('ada', method, '/api/orders/99', undefined, headers));
        expect(missing.status).toBe(404);
        for (const id of [2, 4])
          expect(told(await call('ada', method, `/api/orders/${id}`, undefined, headers))).toEqual(missing);
      }
  });

  test('pages have only rows of the policy, whatever the cursor', async () => {
    const first = await call('ada', 'GET', '/api/orders?limit=1');
    expect(ids(first)).toEqual([1]);
    const cursor = first.headers.get('plank-next-cursor')!;
    expect(first.headers.get('link')).toBe(`</api/orders?limit=1&cursor=${cursor}>; rel="next"`);
    const second = await call('ada', 'GET', `/api/orders?limit=1&cursor=${cursor}`);
    expect(ids(second)).toEqual([3]);
    expect(second.headers.get('plank-next-cursor')).toBeNull();
    const forged = (key: unknown) => Buffer.from(JSON.stringify(key)).toString('base64url');
    expect(ids(await call('ada', 'GET', `/api/orders?cursor=${forged(['1'])}`))).toEqual([3]);
    expect(ids(await call('ada', 'GET', `/api/orders?cursor=${forged(['-5'])}`))).toEqual([1, 3]);
    for (const key of [['0 or true'], ["0'"], ['1', '2'], [null], [{}], 'x'])
      expect((await call('ada', 'GET', `/api/orders?cursor=${forged(key)}`)).status).toBe(400);
  });

  test.each([
    [{ owner: 'bob' }, []],
    [{ or: [{ owner: 'bob' }, { owner: 'ada' }] }, [1, 3]],
    [{ not: { owner: 'ada' } }, []],
    [{ or: [{ id: { gt: 0 } }, { owner: { is: null } }] }, [1, 3]],
    [{ not: { and: [{ owner: 'ada' }, { total: { lt: 2 } }] } }, [3]],
    [{ or: [] }, []],
    [{ and: [] }, [1, 3]],
  ])('where %j stays within the policy', async (filter, expected) => {
    expect(ids(await call('ada', 'GET', `/api/orders?where=${where(filter)}`))).toEqual(expected);
  });

  test.each([
    [{ cost: 7 }, 403, 'where.cost is a column of orders that you may not read'],
    [{ not: { cost: { gt: 5 } } }, 403, 'where.not.cost is a column of orders that you may not read'],
    [{ or: [{ id: 1 }, { cost: { is: null } }] }, 403, 'where.or.1.cost is a column of orders that you may not read'],
    [{ 'column:cost': 7 }, 403, 'where.column:cost is a column of orders that you may not read'],
    [{ nosuch: 7 }, 400, 'where.nosuch is not a column of orders'],
    [{ __proto__x: 7 }, 400, 'where.__proto__x is not a column of orders'],
    [{ owner: { $claim: 'sub' } }, 400, 'where.owner.$claim is no operator'],
    [{ owner: { in: { $from: 'members', select: 'who' } } }, 400, 'where.owner.in must be an array'],
  ])('where %j is refused', async (filter, status, detail) => {
    const answer = await call('ada', 'GET', `/api/orders?where=${where(filter)}`);
    expect([answer.status, answer.body.detail]).toEqual([status, expect.stringContaining(detail)]);
  });

  test('a row of a composite key always has its key', async () => {
    expect((await call('ada', 'GET', '/api/pairs')).text).toBe('[{"a":"x,y","b":1,"owner":"ada"}]');
    expect((await call('ada', 'GET', '/api/pairs/1,x%2Cy')).text).toBe('{"a":"x,y","b":1,"owner":"ada"}');
    expect((await call('ada', 'GET', '/api/pairs/2,z')).status).toBe(404);
  });

  test('a row is too large where the columns are that may be read', async () => {
    const answer = await call('ada', 'GET', '/api/big');
    expect(answer.headers.get('plank-truncated')).toBe('1');
    const texts = answer.body.map(({ id, body }: { id: number; body?: string }) => [id, body?.length]);
    expect(texts).toEqual([
      [1, 1],
      [2, undefined],
      [3, 20_000],
      [4, 1],
    ]);
    const statuses = [1, 2, 3].map(async (id) => (await call('ada', 'GET', `/api/big/${id}`)).status);
    expect(await Promise.all(statuses)).toEqual([200, 422, 200]);
  });

  test('the columns that may be read have the bytes that they have in the whole row', async () => {
    const whole = (await call(auditor, 'GET', '/api/typed/1')).text;
    const hidden = ',"hidden":{"s": "\\u0000"}}';
    expect(whole).toContain(hidden);
    expect((await call('ada', 'GET', '/api/typed/1')).text).toBe(whole.replace(hidden, '}'));
    expect((await call('ada', 'GET', '/api/typed')).text).toBe(`[${whole.replace(hidden, '}')}]`);
  });

  test('the rows of a set are those of now', async () => {
    expect(ids(await call('ada', 'GET', '/api/team_docs'))).toEqual([1]);
    await sql(`insert into members values ('ada', 20)`);
    expect(ids(await call('ada', 'GET', '/api/team_docs'))).toEqual([1, 2]);
    await sql(`delete from members where who = 'ada'`);
    expect(ids(await call('ada', 'GET', '/api/team_docs'))).toEqual([]);
    await sql(`insert into members values ('ada', 10)`);
  });
});

describe('who the client is', () => {
  test('without a token it is anonymous', async () => {
    expect(ids(await call('anonymous', 'GET', '/api/posts'))).toEqual([1]);
    expect((await call('anonymous', 'GET', '/api/posts/2')).status).toBe(404);
    expect((await call('anonymous', 'POST', '/api/posts', { id: 9, published: true })).status).toBe(403);
    expect((await call('anonymous', 'GET', '/api/orders')).status).toBe(404);
  });

  test('with a token, a table without a policy for its role has that for anonymous', async () => {
    expect(ids(await call('ada', 'GET', '/api/posts'))).toEqual([1]);
  });

  test.each([
    ['of alg none', unsigned(claimsOf())],
    ['of another key', hmacToken(claimsOf(), 'another secret that has 32 bytes or more')],
    ['that expired', tokenOf({ exp: now() - 10, iat: now() - 20 })],
    ['without a sub', tokenOf({ sub: undefined })],
    ['with a role that is no text', tokenOf({ role: ['auditor'] })],
  ])('a token %s is refused, and not anonymous', async (_title, token) => {
    const answer = await call(token, 'GET', '/api/posts');
    expect([answer.status, answer.headers.get('www-authenticate')]).toEqual([401, 'Bearer error="invalid_token"']);
  });

  const none = { status: 404, ids: null };
  test.each([
    ['tenants', { org: { id: 7 } }, { status: 200, ids: [1] }],
    ['tenants', { 'org.id': 8, org: { id: 7 } }, { status: 200, ids: [2] }],
    ['tenants', { org: { id: 9 } }, { status: 200, ids: [] }],
    ['tenants', {}, none],
    ['tenants', { org: { id: null } }, none],
    ['tenants', { org: { id: '7' } }, none],
    ['tenants', { org: { id: 7.5 } }, none],
    ['tenants', { org: { id: [7] } }, none],
    ['tenants', { org: { id: { in: [7, 8] } } }, none],
    ['tenants', { org: { id: { $claim: 'sub' } } }, none],
    ['tenants', { org: { id: true } }, none],
    ['tenants', { org: [7] }, none],
    ['tenants', { org: '7' }, none],
    ['tags', { tags: ['a', 'b'] }, { status: 200, ids: [1, 2] }],
    ['tags', { tags: [] }, { status: 200, ids: [] }],
    ['tags', { tags: 'a' }, none],
    ['tags', { tags: [null] }, none],
    ['tags', { tags: ['a', 1] }, none],
    ['tags', { tags: { 0: 'a', length: 1 } }, none],
  ])('%s with the claims %j', async (table, claims, expected) => {
    const answer = await call(tokenOf(claims), 'GET', `/api/${table}`);
    expect({ status: answer.status, ids: answer.status === 200 ? ids(answer) : null }).toEqual(expected);
  });
});

describe('which tables exist', () => {
  const asMissing = (answer: Answer, name: string) => {
    const { text, ...rest } = told(answer);
    return { ...rest, text: text.replaceAll(name, 'nosuch') };
  };
  const methods: [string, string, unknown?][] = [
    ['GET', ''],
    ['GET', `?where=${where({ owner: 'x' })}`],
    ['GET', '?nosuch=1'],
    ['HEAD', ''],
    ['GET', '/1'],
    ['GET', '/not-a-number'],
    ['HEAD', '/1'],
    ['POST', '', { id: 1 }],
    ['POST', '', '{'],
    ['POST', '', { nosuch: 1 }],
    ['PUT', '/1', { id: 1, owner: 'x' }],
    ['PATCH', '/1', { owner: 'x' }],
    ['DELETE', '/1'],
    ['PUT', '', {}],
    ['DELETE', ''],
    ['POST', '/1', {}],
    ['GET', '/changes'],
  ];
  test.each(methods)(
    '%s of a table without rights is as of one that does not exist: %s',
    async (method, rest, body) => {
      for (const [who, table] of [
        ['ada', 'closed'],
        ['anonymous', 'closed'],
        ['anonymous', 'orders'],
        ['ada', 'tenants'],
      ] as const) {
        const missing = asMissing(await call(who, method, `/api/nosuch${rest}`, body), 'nosuch');
        expect(missing.status).toBe(404);
        expect(asMissing(await call(who, method, `/api/${table}${rest}`, body), table)).toEqual(missing);
      }
    },
  );

  test('of a table where one may only insert, there are no rows', async () => {
    for (const [method, rest] of [
      ['GET', ''],
      ['GET', '/1'],
      ['PATCH', '/1'],
      ['PUT', '/1'],
      ['DELETE', '/1'],
    ] as const) {
      const body = method.startsWith('P') ? { body: 'x' } : undefined;
      const missing = asMissing(await call('ada', method, `/api/nosuch${rest}`, body), 'nosuch');
      expect(asMissing(await call('ada', method, `/api/inbox${rest}`, body), 'inbox')).toEqual(missing);
    }
  });

  test('OPTIONS says the same of every table', async () => {
    for (const headers of [{}, { origin: 'https://a.example', 'access-control-request-method': 'PATCH' }]) {
      const missing = told(await call('anonymous', 'OPTIONS', '/api/nosuch', undefined, headers));
      for (const path of ['/api/orders', '/api/closed', '/api/nosuch/1', '/api/orders/1'])
        expect(told(await call('anonymous', 'OPTIONS', path, undefined, headers))).toEqual(missing);
    }
  });

  const raw = async (path: string, who: string) => {
    const headers = who === 'anonymous' ? {} : { authorization: `Bearer ${who}` };
    const { hostname, port } = new URL(stage.embedded.url);
    const sent = request({ hostname, port, path, headers }).end();
    const [response] = (await once(sent, 'response')) as [IncomingMessage];
    return { status: response.statusCode!, text: await textOf(response) };
  };
  test.each([
    '/api/closed',
    '/API/closed',
    '/api/CLOSED',
    '/api/Closed',
    '//api/closed',
    '/api//closed',
    '/api/closed/',
    '/api/closed//',
    '/api/./closed',
    '/api/%2e/closed',
    '/api/posts/../closed',
    '/api/posts/%2e%2e/closed',
    '/api/posts/..%2fclosed',
    '/api/posts%2f..%2fclosed',
    '/api/%63losed',
    '/api/=closed',
    '/api/==closed',
    '/api/%3Dclosed',
    '/api/public.closed',
    '/api/%22closed%22',
    '/api/closed%00',
    '/api/closed;x=1',
    '/api/closed%3Fx',
    '/api/closed%20',
    '/api\\closed',
    '/api/closed/1',
    '/api/closed/%31',
    '/api/closed/1/',
    '/api//closed/1',
    '/api/closed/=1',
    '/api/closed/changes',
    '/api/closed/%63hanges',
    '/API/closed/CHANGES',
    '/api/closed?table=posts',
    '/api/pg_catalog.pg_class',
    '/api/plank.policy',
    '/api/posts%00closed',
  ])('%s leads to no row of a table without rights', async (path) => {
    for (const who of ['anonymous', tokenOf()]) {
      const { status, text } = await raw(path, who);
      expect([status, text.includes('"owner"')]).toEqual([
        expect.toSatisfy((code) => code === 404 || code === 400),
        false,
      ]);
      expect(JSON.parse(text)).toMatchObject({ type: expect.stringMatching(/not-found|malformed|invalid/) });
    }
  });

  test.each(['/API/posts', '/api/posts/', '/api/%70osts', '/api/=posts', '/Api/posts?limit=5'])(
    '%s has the rows of the policy',
    async (path) => {
      const { status, text } = await raw(path, 'anonymous');
      expect([status, text]).toEqual([200, '[{"id":1,"published":true,"body":"public"}]']);
    },
  );

  test('/try/tables.json has those with rights, with the columns of the policy', async () => {
    const listed = async (who: string) => {
      const { body } = await call(who, 'GET', '/try/tables.json');
      return (body as { name: string; columns: { name: string; isWritable: boolean; isRequired: boolean }[] }[]).map(
        ({ name, columns }) => {
          const flags = columns.map((one) => `${one.name}${one.isWritable ? ' w' : ''}${one.isRequired ? ' r' : ''}`);
          return `${name}: ${flags.join(', ')}`;
        },
      );
    };
    expect(await listed('anonymous')).toEqual(['posts: id, published, body']);
    expect((await listed('ada')).filter((line) => /^(orders|inbox|closed|posts|pairs|tenants)/.test(line))).toEqual([
      'inbox: id w r, body w r',
      'orders: id, owner, total w',
      'pairs: a, b, owner',
      'posts: id, published, body',
    ]);
  });

  test('a policy that cannot be used allows nothing', async () => {
    expect((await call('ada', 'POST', '/api/broken', { id: 1, note: 'x' })).status).toBe(201);
    await sql('alter table broken rename note to remark');
    await stage.arrived();
    for (const [method, rest, body] of methods) {
      const missing = asMissing(await call('ada', method, `/api/nosuch${rest}`, body), 'nosuch');
      expect(asMissing(await call('ada', method, `/api/broken${rest}`, body), 'broken')).toEqual(missing);
    }
  });

  test('a policy that changes applies to the next request', async () => {
    await sql(allow('closed', { read: {} }));
    await stage.arrived();
    expect((await call('ada', 'GET', '/api/closed')).status).toBe(200);
    await sql(`select plank.forbid('closed', 'authenticated')`);
    await stage.arrived();
    expect((await call('ada', 'GET', '/api/closed')).status).toBe(404);
  });
});
