// plank.allow, plank.forbid and plank.revoke: what they refuse, by the place of the mistake; what they write to the log; and what becomes of
// policies when tables are altered, detached or restored.

import { describe, expect, test } from 'vitest';
import { Stage } from '../../support/stage/stage.ts';

const stage = Stage.of(`
  create table docs (id int primary key, owner text, team int, secret text, "a.b" int,
                     half int generated always as (team / 2) stored);
  create table members (who text, team int, primary key (who, team));
  create table loose (id int primary key, twice int generated always as (id * 2) stored);
  select plank.attach('docs', exclude => '{secret}'); select plank.attach('members')`);

const { sql } = stage;

const quoted = (value: object) => `'${JSON.stringify(value).replaceAll("'", "''")}'`;
const deep = (levels: number): object => (levels === 1 ? { owner: 'x' } : { not: deep(levels - 1) });
const events = async () =>
  (
    await sql(`select o.relation, a.name, o.action, o.new from plank.outbox o
               left join plank.attached a on a.id = o.relation where o.action in ('A', 'V') order by o.id`)
  ).rows as { relation: number; name: string; action: string; new: string }[];

describe('plank.allow refuses', () => {
  const set = (where?: object, more: object = {}) => ({
    team: { in: { $from: 'members', select: 'team', ...(where && { where }), ...more } },
  });
  test.each([
    [{ gone: 1 }, 'read.gone is no column'],
    [deep(9), 'is too deep: a filter has at most 8 levels'],
    [deep(1_000), 'is too deep: a filter has at most 8 levels'],
    [{ or: Array.from({ length: 100 }, () => ({ owner: 'x' })) }, 'read is too much: a filter has at most 100 nodes'],
    [{ owner: { in: Array(101).fill('x') } }, 'read.owner.in has too many values: at most 100'],
    [{ secret: 'x' }, 'read.secret is no column'],
    [{ xmin: 1 }, 'read.xmin is no column'],
    [{ '"x";--': 1 }, 'read."x";-- is no column'],
    [{ __proto__x: 1 }, 'read.__proto__x is no column'],
    [{ or: { owner: 'x' } }, 'read.or must be an array'],
    [{ or: [{ gone: 1 }] }, 'read.or.gone is no column'],
    [{ not: [] }, 'read.not must be an object'],
    [{ not: { owner: [] } }, 'read.not.owner must be a value'],
    [{ owner: {} }, 'read.owner must be a value'],
    [{ owner: { like: 'x' } }, 'read.owner.like is no operator'],
    [{ owner: { eq: null } }, 'read.owner.eq must be a value'],
    [{ owner: { eq: { a: 1 } } }, 'read.owner.eq must be a value'],
    [{ owner: { is: 1 } }, 'read.owner.is must be null'],
    [{ owner: { in: 'x' } }, 'read.owner.in must be an array'],
    [{ owner: { in: [null] } }, 'read.owner.in must be an array of values'],
    [{ owner: { in: [{ a: 1 }] } }, 'read.owner.in.$claim must be the name'],
    [{ owner: { $claim: 1 } }, 'read.owner.$claim must be the name'],
    [{ owner: { $claim: '' } }, 'read.owner.$claim must be the name'],
    [{ owner: { $claim: 'sub', or: 1 } }, 'read.owner has other members beside $claim'],
    [{ owner: { gt: { $claim: ['sub'] } } }, 'read.owner.gt.$claim must be the name'],
    [set(undefined, { limit: 1 }), 'read.team.in.limit is unknown here'],
    [set(undefined, { $from: 'nowhere' }), 'read.team.in.$from names nowhere, which is not an attached table'],
    [set(undefined, { $from: 'loose' }), 'read.team.in.$from names loose, which is not an attached table'],
    [set(undefined, { $from: 'public.members' }), 'read.team.in.$from names public.members'],
    [set(undefined, { $from: 5 }), 'read.team.in.$from must be the name'],
    [set(undefined, { select: 'gone' }), 'read.team.in.select is no column of members'],
    [set({ gone: 1 }), 'read.team.in.where.gone is no column'],
    [set(set(set())), 'read.team.in.where.team.in.where.team.in is nested too deeply'],
  ])('%j: %s', async (read, problem) => {
    await expect(sql(`select plank.allow('docs', 'user', read => ${quoted(read)})`)).rejects.toThrow(problem);
  });

  test.each([
    [`'docs', ''`, 'role must be the name'],
    [`'docs', null`, 'role must be the name'],
    [`'docs', 'user', read => '[]'`, 'read must be an object'],
    [`'docs', 'user', read => 'null'`, 'read must be an object'],
    [`'docs', 'user', "delete" => '{"gone": 1}'`, 'delete.gone is no column'],
    [`'docs', 'user', "check" => '{}'`, 'check needs update'],
    [`'docs', 'user', read => '{}', read_columns => '{owner,secret}'`, 'read_columns names secret'],
    [`'docs', 'user', read => '{}', read_columns => '{null}'`, 'read_columns'],
    [`'docs', 'user', read => '{}', write_columns => '{gone}'`, 'write_columns names gone'],
    [`'docs', 'user', read => '{}', write_columns => '{half}'`, 'write_columns names half, whose values Postgres'],
    [`'docs', 'user', presets => '{"half": 1}'`, 'presets.half is a column whose values Postgres generates'],
    [`'docs', 'user', presets => '[]'`, 'presets must be an object'],
    [`'docs', 'user', presets => '{"secret": 1}'`, 'presets.secret is no column'],
    [`'docs', 'user', presets => '{"owner": {"$claim": 5}}'`, 'presets.owner.$claim must be the name'],
    [`'loose', 'user', read => '{}'`, 'table public.loose is not attached'],
    [`'pg_class', 'user', read => '{}'`, 'table pg_class is not attached'],
  ])('plank.allow(%s): %s', async (given, problem) => {
    await expect(sql(`select plank.allow(${given})`)).rejects.toThrow(problem);
  });

  test('nothing of a refused policy is kept', async () => {
    expect((await sql('select * from plank.policies')).rows).toEqual([]);
    expect(await events()).toEqual([]);
  });
});

test('each change writes all policies of the table to the log', async () => {
  for (const change of [
    `allow('docs', 'b', read => '{"owner": {"$claim": "sub"}}', read_columns => '{owner}')`,
    `allow('docs', 'a', read => '{}', insert => '{}', presets => '{"owner": {"$claim": "sub"}}')`,
    `allow('docs', 'b', read => '{"column:a.b": 1}')`,
    `forbid('docs', 'a')`,
  ])
    await sql(`select plank.${change}`);
  const all = (await events()).map(({ name, new: text }) => [
    name,
    (JSON.parse(text) as { role: string; read: object }[]).map(({ role, read }) => [role, read]),
  ]);
  const owned = { owner: { $claim: 'sub' } };
  const dotted = { 'column:a.b': 1 };
  expect(all).toEqual([
    ['docs', [['b', owned]]],
    [
      'docs',
      [
        ['a', {}],
        ['b', owned],
      ],
    ],
    [
      'docs',
      [
        ['a', {}],
        ['b', dotted],
      ],
    ],
    ['docs', [['b', dotted]]],
  ]);
  const { rows } = await sql('select "table", role, read, read_columns from plank.policies');
  expect(rows).toEqual([{ table: 'docs', role: 'b', read: dotted, read_columns: null }]);
  await expect(sql(`select plank.forbid('docs', 'a')`)).rejects.toThrow(
    'there is no policy of the role a for public.docs',
  );
});

test('tables without an index for a policy are named', async () => {
  const client = await stage.pool.connect();
  const notices: string[] = [];
  const note = ({ message, hint }: { message?: string | undefined; hint?: string | undefined }) =>
    notices.push(`${message}; ${hint}`);
  client.on('notice', note);
  const set = { $from: 'members', select: 'team', where: { team: 5, who: { ne: 'x' } } };
  const problem = (table: string, columns: string, first: string) =>
    `plank: no index of public.${table} begins with a column that the policy compares (${columns}); ` +
    `If the table is large, make one: create index on public.${table} (${first})`;
  try {
    for (const [read, ...expected] of [
      [{}],
      [{ id: 1, owner: 'x' }],
      [{ owner: 'x', team: { gt: 1 } }, problem('docs', 'owner, team', 'owner')],
      [{ team: { in: set } }, problem('docs', 'team', 'team'), problem('members', 'team', 'team')],
      [{ id: { in: { ...set, where: { who: { $claim: 'sub' } } } } }],
    ] as [object, ...string[]][]) {
      notices.length = 0;
      await client.query(`select plank.allow('docs', 'indexed', read => ${quoted(read)})`);
      expect(notices.sort()).toEqual(expected);
    }
    await client.query(`create index on docs (owner); select plank.allow('docs', 'indexed', read => '{"owner": "x"}')`);
    expect(notices).toEqual([]);
    await client.query(`select plank.forbid('docs', 'indexed')`);
  } finally {
    client.off('notice', note);
    client.release();
  }
});

test('a transaction writes one event, with the policies that it leaves', async () => {
  const before = await events();
  await sql(`select plank.allow('docs', 'c', read => '{}'); select plank.allow('docs', 'c', read => '{"owner": "x"}');
             select plank.forbid('docs', 'b')`);
  const [only, ...others] = (await events()).slice(before.length);
  expect(others).toEqual([]);
  expect(JSON.parse(only!.new)).toMatchObject([{ role: 'c', read: { owner: 'x' } }]);
});

test('of two changes at once, the last event has both', async () => {
  await sql(`select plank.attach('loose')`);
  await Promise.all(
    Array.from({ length: 8 }, (_, i) => sql(`select plank.allow('loose', 'role ${i}', read => '{"id": ${i}}')`)),
  );
  const last = (await events()).filter(({ name }) => name === 'loose').at(-1)!;
  expect(JSON.parse(last.new)).toHaveLength(8);
  await sql(`select plank.detach('loose')`);
  await sql(`select plank.attach('loose')`);
  expect((await sql(`select from plank.policies where "table" = 'loose'`)).rowCount).toBe(0);
});

test('a revocation is an event without a table, and is kept for a year', async () => {
  await sql(`select plank.revoke('ada'); select plank.revoke_token('t-1')`);
  const [user, token] = (await events())
    .slice(-2)
    .map(({ relation, action, new: text }) => [relation, action, JSON.parse(text)]);
  const before = expect.any(Number);
  expect(user).toEqual([0, 'V', { user: 'ada', before, id: 1 }]);
  expect(token).toEqual([0, 'V', { token: 't-1', id: 2 }]);
  expect(Math.abs((user![2] as { before: number }).before - Date.now() / 1_000)).toBeLessThan(60);
  await expect(sql(`select plank.revoke('')`)).rejects.toThrow('user must be');
  await expect(sql('select plank.revoke_token(null)')).rejects.toThrow('token must be');
  await expect(sql(`select plank.revoke('ada', null)`)).rejects.toThrow('before must be');
  await expect(sql(`select plank.revoke('ada', 'infinity')`)).rejects.toThrow('before must be');
  await sql(`update plank.revocations set at = at - interval '400 days', before = before - interval '400 days'`);
  await sql(`select plank.revoke('bob')`);
  expect((await sql('select "user", token from plank.revocations')).rows).toEqual([{ user: 'bob', token: null }]);
});
