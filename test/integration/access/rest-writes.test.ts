// AUTH=jwt over REST: which rows and columns a client may write, and what it learns from a refusal. What must stay true: a write that is
// refused changes nothing; a row that a client may not see is answered like one that does not exist.

import { beforeEach, describe, expect, test } from 'vitest';
import { type Answer, allow, callsOf, own } from '../../support/stage/policies.ts';
import { Stage } from '../../support/stage/stage.ts';
import { secret, tokenOf } from '../../support/stage/tokens.ts';

const every = { read: own, insert: own, update: own, delete: own };
const sub = { owner: { $claim: 'sub' } };
const mine = { team: { in: { $from: 'members', select: 'team', where: { who: { $claim: 'sub' } } } } };
const stage = Stage.of(
  `create table todo (id int primary key, status text);
   create table orders (id int primary key, owner text, status text not null default 'draft', total numeric(10,2),
     cost int not null default 7, memo text default 'none', twice int generated always as (id * 2) stored);
   create table notes (id int primary key, owner text, body text unique);
   create table letters (id serial primary key, owner text, body text not null);
   create table inbox (id int primary key, body text, at timestamptz default '2026-01-01T00:00:00Z');
   create table pairs (a text, b int, owner text, hidden text, primary key (b, a));
   create table given (id int primary key, owner text, body text);
   create table looks (id int primary key, owner text, body text);
   create table team_docs (id int primary key, team int, body text);
   create table members (who text, team int, primary key (who, team));
   create table stolen (id int primary key, owner text, body text);
   create function steal() returns trigger language plpgsql as $$ begin new.owner := 'eve'; return new; end $$;
   create trigger steal before insert or update on stolen for each row when (new.body = 'steal')
     execute function steal();
   create table late (id int primary key, owner text, unique (owner) deferrable initially deferred);
   create table soft (id int primary key, owner text, gone bool not null default false);
   create rule soft_d as on delete to soft do instead update soft set gone = true where id = old.id;
   create rule soft_u as on update to soft where new.owner = 'nobody' do instead nothing;
   create rule soft_i as on insert to soft where new.owner = 'nobody' do instead nothing;
   create table wrong_preset (id int primary key, n int);
   create table typed (id int primary key, owner text, d jsonb, at timestamptz);
   ${'todo orders notes letters inbox pairs given looks team_docs members stolen late soft wrong_preset typed'
     .split(' ')
     .map((name) => `select plank.attach('${name}');`)
     .join('\n')}
   ${allow('orders', {
     ...every,
     update: { ...own, status: 'draft' },
     check: { ...own, status: { in: ['draft', 'sent'] } },
     delete: { ...own, status: 'draft' },
     reads: ['owner', 'status', 'total', 'twice'],
     writes: ['id', 'status', 'total', 'memo'],
     presets: sub,
   })}
   ${allow('notes', every)}
   ${allow('letters', { ...every, presets: sub, writes: ['body'] })}
   ${allow('inbox', { insert: {}, writes: ['id', 'body'] })}
   ${allow('pairs', { ...every, reads: ['owner'] })}
   ${allow('given', { read: own, insert: {}, update: {}, delete: {} })}
   ${allow('looks', { read: {}, update: own })}
   ${allow('team_docs', { read: mine, insert: mine, update: mine })}
   ${allow('members', { read: { who: { $claim: 'sub' } }, insert: mine })}
   ${allow('stolen', every)}
   ${allow('late', every)}
   ${allow('soft', every)}
   ${allow('wrong_preset', { read: {}, insert: {}, update: {}, presets: { n: { $claim: 'n' } } })}
   ${allow('typed', { ...every, presets: { owner: { $claim: 'sub' }, d: { by: 'plank', n: 1 }, at: null } })}`,
  { AUTH: 'jwt', AUTH_JWT_SECRET: secret },
);
const { sql } = stage;
const call = callsOf(stage);
const rowsOf = async (table: string) =>
  (await sql(`select t::text as row from ${table} t order by 1`)).rows.map((one) => one.row as string);
/** Whether the answer has a tag by which the row can be changed. */
const isTagged = ({ headers }: Answer) => headers.get('etag')?.startsWith('"') ?? false;
const code = ({ status, body }: Answer) => [status, body?.code ?? null];

beforeEach(() =>
  sql(`
    truncate orders, notes, letters, inbox, pairs, given, looks, team_docs, members, stolen, late, soft, typed,
      wrong_preset restart identity;
    insert into orders (id, owner, status, total, memo) values (1, 'ada', 'draft', 1.50, 'a'),
      (2, 'bob', 'draft', 2, 'b'), (3, 'ada', 'sent', 3, 'c'), (4, null, 'draft', 4, 'd');
    insert into notes values (1, 'ada', 'mine'), (2, 'bob', 'his');
    insert into pairs values ('x,y', 1, 'ada', 'h'), ('z', 2, 'bob', 'h');
    insert into given values (1, 'ada', 'x'), (2, 'bob', 'y');
    insert into looks values (1, 'ada', 'x'), (2, 'bob', 'y');
    insert into team_docs values (1, 10, 'ours'), (2, 20, 'theirs');
    insert into members values ('ada', 10), ('bob', 20);
    insert into stolen values (1, 'ada', 'x');
    insert into late values (1, 'ada');
    insert into soft values (1, 'ada'), (2, 'bob');
    insert into typed values (1, 'ada', '{"by": "x"}', '2026-01-31T12:00:00Z')`),
);

/** Calls, and requires that the table is as before. */
async function refused(table: string, ...args: Parameters<typeof call>): Promise<Answer> {
  const before = await rowsOf(table);
  const answer = await call(...args);
  expect(await rowsOf(table)).toEqual(before);
  return answer;
}

describe('a row that one may not see', () => {
  const headers: Record<string, string>[] = [
    {},
    { 'if-match': '*' },
    { 'if-match': '"wrong"' },
    { 'if-none-match': '*' },
    { 'if-none-match': '"wrong"' },
  ];
  test.each<[string, object | undefined]>([
    ['DELETE', undefined],
    ['PATCH', { total: 9 }],
    ['PATCH', { status: 'nosuch' }],
    ['PATCH', { id: 1 }],
    ['PATCH', { owner: 'ada' }],
    ['PATCH', { twice: 5 }],
    ['PATCH', { nosuch: 5 }],
    ['PATCH', { owner: 'eve' }],
    ['PATCH', { cost: 5 }],
    ['PUT', { owner: 'ada', status: 'draft', total: 1 }],
    ['PUT', {}],
  ])('%s with %j is as for one that does not exist', async (method, body) => {
    for (const given of headers) {
      const missing = await call('ada', method, '/api/orders/99', body, given);
      for (const id of [2, 4]) {
        const answer = await refused('orders', 'ada', method, `/api/orders/${id}`, body, given);
        expect([answer.status, answer.text]).toEqual([missing.status, missing.text]);
      }
    }
  });

  test('is not deleted, but one that one may see is, by its tag', async () => {
    const tag = (await call('ada', 'GET', '/api/orders/1')).headers.get('etag')!;
    expect(code(await refused('orders', 'ada', 'DELETE', '/api/orders/2', undefined, { 'if-match': tag }))).toEqual([
      404,
      'NOT_FOUND',
    ]);
    expect(code(await refused('orders', 'ada', 'DELETE', '/api/orders/1', undefined, { 'if-match': '"x"' }))).toEqual([
      412,
      'PRECONDITION_FAILED',
    ]);
    expect(code(await call('ada', 'DELETE', '/api/orders/1', undefined, { 'if-match': tag }))).toEqual([204, null]);
    expect(code(await call('ada', 'DELETE', '/api/orders/1'))).toEqual([404, 'NOT_FOUND']);
  });

  test('is not written where every row may be written', async () => {
    for (const given of headers) {
      const missing = await call('ada', 'DELETE', '/api/given/99', undefined, given);
      for (const [method, body] of [['DELETE'], ['PATCH', { body: 'z' }], ['PUT', { owner: 'ada' }]] as const) {
        const answer = await refused('given', 'ada', method, '/api/given/2', body, given);
        expect([method, answer.status, answer.text]).toEqual([method, 404, missing.text]);
      }
    }
  });

  test('by a key of several columns', async () => {
    expect(code(await refused('pairs', 'ada', 'PATCH', '/api/pairs/2,z', { owner: 'ada' }))).toEqual([
      404,
      'NOT_FOUND',
    ]);
    const answer = await call('ada', 'PATCH', '/api/pairs/1,x%2Cy', { hidden: 'new' });
    expect(answer.text).toBe('{"a":"x,y","b":1,"owner":"ada"}');
    expect(await rowsOf('pairs')).toContain('("x,y",1,ada,new)');
  });
});

describe('a row that one may see and not write', () => {
  test.each<[string, string, object | undefined, string]>([
    ['DELETE', '/api/orders/3', undefined, 'You may not delete this row'],
    ['PATCH', '/api/orders/3', { total: 1 }, 'You may not update this row'],
    ['PUT', '/api/orders/3', { status: 'sent' }, 'You may not update this row'],
    ['PATCH', '/api/looks/2', { body: 'z' }, 'You may not update this row'],
    ['DELETE', '/api/looks/1', undefined, 'You may not delete this row'],
    ['POST', '/api/looks', { id: 9 }, 'You may not insert rows into looks'],
    ['POST', '/api/looks', { nosuch: 9 }, 'You may not insert rows into looks'],
  ])('%s %s %j', async (method, path, body, detail) => {
    const table = path.split('/')[2]!;
    for (const given of [{}, { 'if-match': '"wrong"' }]) {
      if (method === 'POST' && 'if-match' in given) continue;
      const answer = await refused(table, 'ada', method, path, body, given);
      expect([...code(answer), answer.body.detail]).toEqual([403, 'FORBIDDEN', detail]);
    }
  });
});

describe('columns', () => {
  test.each<[string, string, object, number, string]>([
    [
      'changing the owner',
      'PATCH /api/orders/1',
      { owner: 'bob' },
      403,
      'You may not set these columns of orders: owner',
    ],
    ['the owner as null', 'PATCH /api/orders/1', { owner: null }, 403, 'orders: owner'],
    ['the owner of a new row', 'POST /api/orders', { id: 9, owner: 'bob' }, 403, 'orders: owner'],
    [
      'changing the owner where all may be set',
      'PATCH /api/notes/1',
      { owner: 'bob' },
      403,
      'You may not write a row of notes with these values',
    ],
    ['the owner of a new row where all may be set', 'POST /api/notes', { id: 9, owner: 'bob' }, 403, 'a row of notes'],
    ['no owner of a new row', 'POST /api/notes', { id: 9 }, 403, 'a row of notes'],
    ['a hidden column', 'PATCH /api/orders/1', { cost: 1 }, 403, 'orders: cost'],
    ['a hidden column with its value', 'PATCH /api/orders/1', { cost: 7 }, 403, 'orders: cost'],
    ['a hidden column of a new row', 'POST /api/orders', { id: 9, cost: 7 }, 403, 'orders: cost'],
    ['a hidden column by PUT', 'PUT /api/orders/1', { status: 'draft', cost: 7 }, 403, 'orders: cost'],
    ['several', 'POST /api/orders', { id: 9, cost: 7, owner: 'ada', total: 1, nosuch: 1 }, 403, 'orders: cost'],
    ['a key that the server makes', 'POST /api/letters', { id: 9, body: 'x' }, 403, 'letters: id'],
    ['another key', 'PATCH /api/letters/1', { id: 9 }, 404, 'There is no row'],
    ['a generated column', 'PATCH /api/orders/1', { twice: 5 }, 400, 'twice is read-only'],
    ['a generated column of a new row', 'POST /api/orders', { id: 9, twice: 5 }, 400, 'twice is read-only'],
    ['an unknown column', 'PATCH /api/orders/1', { nosuch: 5 }, 400, 'nosuch is not a column of orders'],
    ['an unknown column of a new row', 'POST /api/orders', { id: 9, xmin: 5 }, 400, 'xmin is not a column of orders'],
    ['a column of all objects', 'POST /api/orders', { id: 9, constructor: 5 }, 400, 'constructor is not a column'],
    ['what the check does not allow', 'PATCH /api/orders/1', { status: 'paid' }, 403, 'a row of orders'],
    ['what the check does not allow, by PUT', 'PUT /api/orders/1', { status: 'paid' }, 403, 'a row of orders'],
    ['a column that needs a value', 'POST /api/letters', {}, 400, 'body is required'],
    ['another team', 'PATCH /api/team_docs/1', { team: 20 }, 403, 'a row of team_docs'],
    ['a new row of another team', 'POST /api/team_docs', { id: 9, team: 20 }, 403, 'a row of team_docs'],
    ['oneself as a member of another team', 'POST /api/members', { who: 'ada', team: 20 }, 403, 'a row of members'],
  ])('%s is refused', async (_title, line, body, status, detail) => {
    const [method, path] = line.split(' ') as [string, string];
    const answer = await refused(path.split('/')[2]!, 'ada', method, path, body);
    expect([answer.status, answer.body.detail]).toEqual([status, expect.stringContaining(detail)]);
  });

  test('a refused column is named as a field', async () => {
    const { body } = await call('ada', 'PATCH', '/api/orders/1', { cost: 1, owner: 'bob', total: 2 });
    expect(body.errors).toEqual([{ path: 'cost', message: 'must not be set' }]);
  });

  test('that may not be set, but read, can be sent back', async () => {
    const { text } = await call('ada', 'GET', '/api/orders/1');
    const answer = await call('ada', 'PUT', '/api/orders/1', text);
    expect([answer.status, answer.text]).toEqual([200, text]);
    for (const [name, value] of Object.entries(JSON.parse(text) as object))
      expect([name, (await call('ada', 'PATCH', '/api/orders/1', { [name]: value })).status]).toEqual([name, 200]);
    // neither the hidden columns nor the presets are reset
    expect(await rowsOf('orders')).toContain('(1,ada,draft,1.50,7,a,2)');
    const letter = await call('ada', 'POST', '/api/letters', { body: 'x' });
    expect((await call('ada', 'PUT', letter.headers.get('location')!, letter.text)).text).toBe(letter.text);
    expect(code(await call('ada', 'PUT', '/api/letters/1', { id: 2, body: 'x' }))).toEqual([403, 'FORBIDDEN']);
  });

  test('that are preset are set, for a new row and for a changed one', async () => {
    const made = await call('ada', 'POST', '/api/orders', { id: 9, total: 9, memo: 'm', owner: 'ada' });
    expect([made.status, made.text, made.headers.get('location')]).toEqual([
      201,
      '{"id":9,"owner":"ada","status":"draft","total":9.00,"twice":18}',
      '/api/orders/9',
    ]);
    expect(made.headers.get('etag')).toBe((await call('ada', 'GET', '/api/orders/9')).headers.get('etag'));
    expect(await rowsOf('orders')).toContain('(9,ada,draft,9.00,7,m,18)');
    const typed = await call('ada', 'PATCH', '/api/typed/1', { id: 1 });
    expect(typed.text).toBe('{"id":1,"owner":"ada","d":{"n": 1, "by": "plank"},"at":null}');
    expect((await call('ada', 'POST', '/api/typed', { id: 2, d: { n: 1, by: 'plank' }, at: null })).status).toBe(201);
    for (const body of [{ d: { by: 'plank' } }, { at: '2026-01-31T12:00:00Z' }, { d: null }])
      expect(code(await refused('typed', 'ada', 'PATCH', '/api/typed/1', body))).toEqual([403, 'FORBIDDEN']);
  });

  test('a preset whose claim is no value of the column, or is missing, denies the whole table', async () => {
    const path = '/api/wrong_preset';
    for (const n of ['x', '7', 1.5, [1], { a: 1 }, 2 ** 40])
      expect(code(await refused('wrong_preset', tokenOf({ n }), 'POST', path, { id: 1 }))).toEqual([404, 'NOT_FOUND']);
    expect((await call(tokenOf({ n: 7 }), 'POST', path, { id: 1 })).text).toBe('{"id":1,"n":7}');
    expect((await refused('wrong_preset', tokenOf(), 'POST', path, { id: 2 })).status).toBe(404);
  });
});

describe('the row that results', () => {
  test('a trigger that makes it another one is judged', async () => {
    expect(code(await refused('stolen', 'ada', 'POST', '/api/stolen', { id: 9, owner: 'ada', body: 'steal' }))).toEqual(
      [403, 'FORBIDDEN'],
    );
    expect(code(await refused('stolen', 'ada', 'PATCH', '/api/stolen/1', { body: 'steal' }))).toEqual([
      403,
      'FORBIDDEN',
    ]);
    expect(code(await refused('stolen', 'ada', 'PUT', '/api/stolen/1', { owner: 'ada', body: 'steal' }))).toEqual([
      403,
      'FORBIDDEN',
    ]);
    expect((await call('ada', 'PATCH', '/api/stolen/1', { body: 'y' })).status).toBe(200);
  });

  test('may be one that the client cannot see: then it gets the key only', async () => {
    const sent = await call('ada', 'POST', '/api/inbox', { id: 5, body: 'x' });
    expect([sent.status, sent.text, sent.headers.get('location'), isTagged(sent)]).toEqual([
      201,
      '{"id":5}',
      '/api/inbox/5',
      false,
    ]);
    const handed = await call('ada', 'PATCH', '/api/given/1', { owner: 'bob', body: 'for you' });
    expect([handed.status, handed.text, isTagged(handed)]).toEqual([200, '{"id":1}', false]);
    expect(await rowsOf('given')).toContain('(1,bob,"for you")');
    expect((await call('ada', 'GET', '/api/given/1')).status).toBe(404);
    expect((await call('ada', 'POST', '/api/given', { id: 7, owner: 'bob' })).text).toBe('{"id":7}');
  });

  test('one that exists is a conflict; a deferred conflict as well', async () => {
    expect(code(await refused('notes', 'ada', 'POST', '/api/notes', { id: 1, owner: 'ada' }))).toEqual([
      409,
      'CONFLICT',
    ]);
    expect(code(await refused('late', 'ada', 'POST', '/api/late', { id: 9, owner: 'ada' }))).toEqual([409, 'CONFLICT']);
    expect((await call('bob', 'POST', '/api/late', { id: 9, owner: 'bob' })).status).toBe(201);
  });

  test('rules of the table do not get around the policy', async () => {
    expect(code(await refused('soft', 'ada', 'DELETE', '/api/soft/2'))).toEqual([404, 'NOT_FOUND']);
    expect(code(await refused('soft', 'ada', 'PATCH', '/api/soft/2', { owner: 'ada' }))).toEqual([404, 'NOT_FOUND']);
    expect(code(await refused('soft', 'ada', 'PATCH', '/api/soft/1', { owner: 'bob' }))).toEqual([403, 'FORBIDDEN']);
    expect(code(await refused('soft', 'ada', 'POST', '/api/soft', { id: 9, owner: 'bob' }))).toEqual([
      403,
      'FORBIDDEN',
    ]);
    expect(code(await refused('soft', 'ada', 'POST', '/api/soft', { id: 2, owner: 'ada' }))).toEqual([409, 'CONFLICT']);
    expect(code(await call('ada', 'DELETE', '/api/soft/1'))).toEqual([204, null]);
    expect(await rowsOf('soft')).toEqual(['(1,ada,t)', '(2,bob,f)']);
    const changed = await call('ada', 'PATCH', '/api/soft/1', { gone: false });
    expect([changed.status, changed.text]).toEqual([200, '{"id":1,"owner":"ada","gone":false}']);
    const made = await call('ada', 'POST', '/api/soft', { id: 9, owner: 'ada' });
    expect([made.status, made.text]).toEqual([201, '{"id":9,"owner":"ada","gone":false}']);
  });
});
