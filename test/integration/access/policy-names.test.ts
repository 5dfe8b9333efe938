// A policy keeps its meaning. When a column or a table that it names is renamed, dropped, excluded or detached, it allows nothing, also if
// another one gets the name; gateways get an event, and plank.check reports the policy. This holds in restored dumps too.

import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import { migrate } from '#shared/postgres/migrate.ts';
import { admin } from '../../support/servers/admin.ts';
import { DistributionPostgres } from '../../support/servers/distribution-postgres.ts';
import { createDatabase } from '../../support/servers/servers.ts';

const setUp = `
  create table docs (id int primary key, owner text, editor text, team int, notes text);
  create table members (who text, team int, role text, primary key (who, team));
  select plank.attach('docs'), plank.attach('members');
  select plank.allow('docs', 'owner', read => '{"owner": {"$claim": "sub"}}', read_columns => '{notes}'),
         plank.allow('docs', 'team', read => '{"or": [{"not": {"team": {"in":
           {"$from": "members", "select": "team", "where": {"who": {"$claim": "sub"}, "role": "admin"}}}}}]}'),
         plank.allow('docs', 'writer', insert => '{}', write_columns => '{notes}', presets => '{"editor": 1}'),
         plank.allow('docs', 'reader', read => '{}')`;

let postgres: DistributionPostgres;
let number = 0;

beforeAll(async () => {
  postgres = await DistributionPostgres.start();
  await migrate(await empty('migrated'));
});
afterAll(() => postgres?.stop());

async function empty(name: string, options = ''): Promise<string> {
  await admin(postgres.url(), `create database ${name} ${options}`);
  return postgres.url(name);
}

const versions: [string, () => Promise<string>][] = [
  ['the Postgres of npm', async () => (await createDatabase()).url],
  ["the distribution's Postgres", () => empty(`named_${(number += 1)}`, 'template migrated')],
];

const dropped = (column: string) => `names the column ${column}, which was dropped, renamed or excluded`;

describe.each(versions)('on %s', (_version, database) => {
  let url: string;
  const sql = (text: string) => admin(url, text);
  /** by role, of policies that allow nothing */
  const problems = async () =>
    Object.fromEntries(
      (await sql('select role, problem from plank.policies where problem is not null order by role')).map((row) => [
        row['role'],
        row['problem'],
      ]),
    );
  /** The roles whose policies have a problem, in each event A, and the events S. */
  const events = async () =>
    (await sql(`select action, new from plank.outbox where action in ('A', 'S') order by id`)).map((row) =>
      row['action'] === 'S'
        ? 'S'
        : (JSON.parse(row['new']!) as { role: string; problem?: string }[])
            .filter(({ problem }) => problem !== undefined)
            .map(({ role }) => role)
            .join(),
    );
  const checked = async () =>
    (await sql(`select problem from plank.check() where problem like 'the policy%' order by 1`)).map((row) =>
      row['problem']!.split('; run: ')[0]!.split(' names')[0]!.slice('the policy of the role '.length),
    );

  beforeAll(async () => {
    url = await database();
    await sql(setUp);
  });

  test('the columns that policies name are recorded', async () => {
    expect(await problems()).toEqual({});
    expect(await checked()).toEqual([]);
  });

  test.each([
    ['alter table docs rename owner to boss', { owner: dropped('owner') }, 'alter table docs rename boss to owner'],
    [
      'alter table members rename role to rank',
      { team: dropped('members.role') },
      'alter table members rename rank to role',
    ],
    [
      'alter table members rename to people',
      { team: 'names the table members, whose name is people now' },
      'alter table people rename to members',
    ],
    [
      `select plank.attach('docs', exclude => '{team}')`,
      { team: dropped('team') },
      `select plank.attach('docs', '{}')`,
    ],
    [
      `select plank.attach('members', exclude => '{role}')`,
      { team: dropped('members.role') },
      `select plank.attach('members', '{}')`,
    ],
    ['alter table docs rename to papers', {}, 'alter table papers rename to docs'],
  ])('%s', async (change, expected, back) => {
    const before = await events();
    await sql(change);
    const roles = Object.keys(expected);
    expect(await problems()).toEqual(expected);
    expect(await checked()).toEqual(roles);
    // the event comes before the other shape, so the policy is not used with it
    expect((await events()).slice(before.length)).toEqual([...(roles.length > 0 ? [roles.join()] : []), 'S']);
    await sql(back);
    expect(await problems()).toEqual({});
    expect(await checked()).toEqual([]);
    expect((await events()).at(-2)).toEqual(roles.length > 0 ? '' : 'S');
  });

  test('a column that gets the name of another one is not taken for it', async () => {
    await sql(`begin; alter table docs rename owner to former; alter table docs rename editor to owner;
               alter table docs rename former to editor; commit`);
    expect(await problems()).toEqual({ owner: dropped('owner'), writer: dropped('editor') });
    await sql(`select plank.allow('docs', 'owner', read => '{"owner": {"$claim": "sub"}}', read_columns => '{notes}')`);
    expect(await problems()).toEqual({ writer: dropped('editor') });
    await sql('alter table docs drop column notes; alter table docs add column notes text');
    expect(await problems()).toEqual({ owner: dropped('notes'), writer: dropped('editor') });
    await sql(`select plank.forbid('docs', 'writer')`);
    await sql(`select plank.allow('docs', 'owner', read => '{"owner": {"$claim": "sub"}}', read_columns => '{notes}')`);
    expect(await problems()).toEqual({});
    expect((await events()).at(-1)).toBe('');
  });

  test('a table that gets the name of another one is not taken for it, nor is one that was attached again', async () => {
    await sql('alter table members rename to former; create table members (like former including all)');
    await sql(`select plank.attach('members')`);
    expect(await problems()).toEqual({ team: 'names the table members, whose name is former now' });
    await sql('drop table former');
    expect(await problems()).toEqual({ team: 'names the table members, which is not attached any more' });
    expect(await checked()).toEqual(['team']);
    await sql(`select plank.allow('docs', 'team', read => '{"team": {"in": {"$from": "members", "select": "team"}}}')`);
    expect(await problems()).toEqual({});
    await sql(`select plank.detach('members'); select plank.attach('members')`);
    expect(await problems()).toEqual({ team: 'names the table members, which is not attached any more' });
  });

  test('DDL that no event trigger follows is found too', async () => {
    await sql(`drop event trigger plank_ddl; alter table docs rename owner to boss`);
    expect(await problems()).toMatchObject({ owner: dropped('owner') });
    expect(await checked()).toEqual(['owner', 'team']);
    await sql('alter table docs rename boss to owner');
    expect(await checked()).toEqual(['team']);
    await sql(`alter table docs rename owner to boss; select plank.attach('docs')`);
    expect((await events()).slice(-2)).toEqual(['owner,team', 'S']);
    await sql('drop table docs cascade');
    expect(await sql('select from plank.policy')).toEqual([]);
  });
});

describe('in a restored dump', () => {
  const problems = async (url: string) =>
    (await admin(url, 'select role, problem from plank.policies where problem is not null order by role')).map(
      (row) => row['role'],
    );

  async function restored(change: string): Promise<string> {
    const source = await empty(`source_${(number += 1)}`, 'template migrated');
    // columns get other numbers in a restored dump
    await admin(source, setUp.replace('create table docs (', 'create table docs (junk int, '));
    await admin(source, `alter table docs drop column junk; ${change}`);
    const file = await postgres.file(`policies-${number}`);
    await postgres.tool('pg_dump', ['-Fc', '-f', file, '-d', source]);
    const target = await empty(`target_${number}`);
    await postgres.tool('pg_restore', ['-d', target, file]);
    return target;
  }

  test('policies are kept, before and after the tables are attached again', async () => {
    const url = await restored('select 1');
    const before = await admin(url, 'select * from plank.policies order by role');
    expect(before).toHaveLength(4);
    expect(await problems(url)).toEqual([]);
    await admin(url, 'select plank.attach(relation) from plank.attached');
    expect(await admin(url, 'select * from plank.policies order by role')).toEqual(before);
    expect(await admin(url, 'select * from plank.check()')).toEqual([]);
    expect(
      await admin(
        url,
        `select u."column" from plank.policy_uses u join plank.attached a on a.id = u.used
         join pg_attribute t on t.attrelid = a.relation and t.attname = u."column" where t.attnum <> u.number`,
      ),
    ).toEqual([]);
    await admin(url, 'alter table docs rename owner to boss; alter table docs rename editor to owner');
    expect(await problems(url)).toEqual(['owner', 'writer']);
  });

  test('DDL is followed before the tables are attached again', async () => {
    const url = await restored('select 1');
    await admin(url, 'alter table docs rename owner to boss; alter table members rename role to rank');
    expect(await problems(url)).toEqual(['owner', 'team']);
  });

  test('a policy that could not be used is not taken for one of another column with that name', async () => {
    const url = await restored('alter table docs rename owner to boss; alter table docs rename editor to owner');
    expect(await problems(url)).toEqual(['owner', 'writer']);
    await admin(url, 'select plank.attach(relation) from plank.attached');
    expect(await problems(url)).toEqual(['owner', 'writer']);
    await admin(url, `select plank.allow('docs', 'owner', read => '{"owner": {"$claim": "sub"}}')`);
    expect(await problems(url)).toEqual(['writer']);
  });
});
