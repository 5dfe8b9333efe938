// `npm run policy`: says which policy applies to a user, what it admits, and why nothing is allowed.

import { Client } from 'pg';
import { afterAll, beforeAll, expect, test } from 'vitest';
import { runCommand } from '../../support/deploy/command.ts';
import { createDatabase, type TestDatabase } from '../../support/servers/servers.ts';
import { allow, own } from '../../support/stage/policies.ts';

let database: TestDatabase;

beforeAll(async () => {
  database = await createDatabase();
  const client = new Client({ connectionString: database.url });
  await client.connect();
  await client.query(`
    create table notes (id integer primary key, owner text, org integer, body text, secret text);
    select plank.attach('notes');
    create table members (id integer primary key, who text, org integer);
    select plank.attach('members');
    insert into notes values (1, 'ada', 5, 'a', 's'), (2, 'bob', 5, 'b', 's'), (3, 'ada', 6, 'c', 's');
    insert into members values (1, 'eve', 6);
    ${allow('notes', {
      read: own,
      insert: {},
      update: { ...own, body: 'draft' },
      reads: ['owner', 'body'],
      writes: ['body'],
      presets: { owner: { $claim: 'sub' } },
    })}
    ${allow('notes', { read: { org: { $claim: 'org.id' } } }, 'clerk')}
    ${allow(
      'notes',
      { read: { org: { in: { $from: 'members', select: 'org', where: { who: { $claim: 'sub' } } } } } },
      'member',
    )}
    ${allow('notes', { read: { secret: 's' } }, 'broken')}
    alter table notes drop column secret`);
  await client.end();
});
afterAll(() => database?.drop());

const run = (args: string[]) => runCommand('deploy/access/policy.ts', args, { DATABASE_URL: database.url });
const as = (claims: object, table = 'notes') => run(['test', table, '--as', JSON.stringify(claims)]);

test('the policy of a user is printed, with its rows and columns', async () => {
  const { code, stdout, stderr } = await as({ sub: 'ada' });
  expect({ code, stderr }).toEqual({ code: 0, stderr: '' });
  expect(stdout.split('\n')).toEqual([
    'table     notes',
    'viewer    ada, role authenticated',
    'policy    the one of the role authenticated',
    'read      owner = "ada"',
    expect.stringMatching(/^ {10}\(t\."owner" .* -- \$1 = "ada"$/),
    'insert    every row',
    'update    body = "draft" and owner = "ada"',
    expect.stringContaining('$2'),
    'check     body = "draft" and owner = "ada"',
    expect.stringContaining('$2'),
    'delete    nothing: the policy has no "delete"',
    'rows      2 of 3 may be read now',
    'readable  id, owner, body',
    'writable  body',
    'preset    owner = "ada"',
    '',
  ]);
});

test.each([
  [{ sub: 'ada', role: 'clerk', org: { id: 5 } }, 'rows      2 of 3 may be read now'],
  [{ sub: 'eve', role: 'member' }, 'rows      1 of 3 may be read now'],
  [{ sub: 'eve', role: 'member' }, 'read      org in (org of members where who = "eve")'],
  // the role has no policy of its own
  [{ sub: 'bob', role: 'other' }, 'policy    the one of the role authenticated'],
])('%j: %s', async (claims, line) => {
  const { code, stdout } = await as(claims);
  expect(code).toBe(0);
  expect(stdout.split('\n')).toContain(line);
});

test.each([
  [{}, 'notes', 'the table has no policy for anonymous.'],
  [{ sub: 'ada', role: 'clerk' }, 'notes', 'the policy of the role clerk needs org.id: a claim is missing'],
  [{ sub: 'ada', role: 'clerk', org: { id: '5' } }, 'notes', 'the policy of the role clerk needs org.id'],
  [{ sub: 'ada', role: 'broken' }, 'notes', 'the policy of the role broken cannot be used: '],
  [{ sub: 'ada' }, 'public.members', 'the table has no policy for authenticated, anonymous.'],
])('where nothing is allowed, the reason is printed: %j on %s', async (claims, table, why) => {
  const { code, stdout } = await as(claims, table);
  expect(code).toBe(1);
  expect(stdout).toContain(`nothing   is allowed: ${why}`);
});

test.each([
  [['test', 'nowhere', '--as', '{}'], 'nowhere is not attached; attached are: items, members, notes'],
  [['test', 'notes'], '--as is needed'],
  [['test', 'notes', '--as', '5'], '--as must be the claims of a token as a JSON object'],
  [['test', 'notes', '--as', '{"role":"user"}'], '--as needs "sub"'],
  [['test', 'notes', '--as', '{"sub":"ada","role":5}'], 'the role (role) must be a text'],
  [['test', '--as', '{}'], 'use "test <table>'],
  [['list'], 'use "test <table>'],
])('wrong input is an error of one line: %j', async (args, message) => {
  const ended = await run(args);
  expect(ended).toMatchObject({ code: 2, stdout: '' });
  expect(ended.stderr).toMatch(/^plank policy: [^\n]+\n$/);
  expect(ended.stderr).toContain(message);
});
