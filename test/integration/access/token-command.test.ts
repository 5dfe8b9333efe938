// `npm run token`: makes tokens that gateways accept, and says why gateways refuse the others.

import { Client } from 'pg';
import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import { runCommand } from '../../support/deploy/command.ts';
import { createDatabase, type TestDatabase } from '../../support/servers/servers.ts';
import { hmacToken, now, secret, tokenOf } from '../../support/stage/tokens.ts';

const run = (args: string[], env: Record<string, string> = {}) =>
  runCommand('deploy/access/token.ts', args, { AUTH_JWT_SECRET: secret, ...env });

const claimsIn = (token: string) => JSON.parse(Buffer.from(token.split('.')[1]!, 'base64url').toString());

test('a token that was made is accepted, with its role and its claims', async () => {
  const env = { AUTH_ROLE_CLAIM: 'realm.role', AUTH_AUDIENCE: 'shop', AUTH_ISSUER: 'https://issuer.example' };
  const args = ['--sub', 'ada', '--role', 'editor', '--ttl', '15m', '--claim', 'org.id=5', '--claim', 'team=a=b'];
  const made = await run(['make', ...args], env);
  expect(made).toMatchObject({ code: 0, stderr: '' });
  const token = made.stdout.trim();
  const claims = claimsIn(token);
  expect(claims).toMatchObject({ sub: 'ada', realm: { role: 'editor' }, org: { id: 5 }, team: 'a=b', aud: 'shop' });
  expect(claims.exp - claims.iat).toBe(900);
  const checked = await run(['check', token], env);
  expect(checked).toMatchObject({ code: 0, stderr: '' });
  expect(checked.stdout).toMatch(/^user {5}ada\nrole {5}editor\nexpires {2}\S+ \(in 14 min\)\n/);
  expect(checked.stdout).toContain('revoked  not examined: DATABASE_URL is not set');
});

test.each([
  ['expired', () => tokenOf({ exp: now() - 1 }), {}],
  ['audience', () => tokenOf(), { AUTH_AUDIENCE: 'shop' }],
  ['issuer', () => tokenOf(), { AUTH_ISSUER: 'https://issuer.example' }],
  ['lifetime', () => tokenOf(), { AUTH_MAX_LIFETIME_S: '60' }],
  ['claims', () => tokenOf({ role: 5 }), {}],
  ['invalid', () => hmacToken({ sub: 'ada', exp: now() + 60 }, 'another secret that has 32 bytes or more'), {}],
] as const)('the reason of a refusal is printed: %s', async (reason, token, env) => {
  const checked = await run(['check', token()], env);
  expect(checked).toMatchObject({ code: 1, stdout: '' });
  expect(checked.stderr).toMatch(new RegExp(`^plank token: refused \\(${reason}\\): the token .*\n$`));
});

test.each([
  [[], {}, 'use "make --sub <user>'],
  [['make'], {}, '--sub is needed'],
  [['make', '--sub', 'ada', '--ttl', '1 hour'], {}, '--ttl must be a number with a unit'],
  [['make', '--sub', 'ada', '--ttl', '2d'], {}, '--ttl is above AUTH_MAX_LIFETIME_S'],
  [['make', '--sub', 'ada', '--claim', 'org'], {}, '--claim must be <name>=<value>'],
  [['make', '--sub', 'ada', '--claim', 'exp=1'], {}, '--claim exp cannot be set: use --ttl'],
  [['make', '--sub', 'ada', '--claim', 'a=1', '--claim', 'a.b=1'], {}, '--claim a.b: a has a value already'],
  [['make', '--sub', 'ada', '--user', 'x'], {}, 'unknown option --user'],
  [['make', '--sub', 'ada'], { AUTH_JWT_SECRET: 'short' }, 'AUTH_JWT_SECRET must be at least 32 bytes'],
  [['make', '--sub', 'ada'], { AUTH_JWT_SECRET: '' }, 'AUTH=jwt needs exactly one of'],
  [['check'], {}, 'check needs one token'],
] as const)('wrong input is an error of one line: %j %j', async (args, env, message) => {
  const ended = await run([...args], env);
  expect(ended).toMatchObject({ code: 2, stdout: '' });
  expect(ended.stderr).toMatch(/^plank token: [^\n]+\n$/);
  expect(ended.stderr).toContain(message);
});

describe('with a database', () => {
  let database: TestDatabase;

  beforeAll(async () => {
    database = await createDatabase();
    const client = new Client({ connectionString: database.url });
    await client.connect();
    await client.query("select plank.revoke('ada'), plank.revoke_token('one')");
    await client.end();
  });
  afterAll(() => database?.drop());

  test.each([
    ['revoked', { iat: now() - 60 }, 1],
    ['revoked', { sub: 'bob', jti: 'one' }, 1],
    ['no', { sub: 'bob', jti: 'two' }, 0],
  ] as const)('revocations count: %s %j', async (says, claims, code) => {
    const checked = await run(['check', tokenOf(claims)], { DATABASE_URL: database.url });
    expect(checked).toMatchObject({ code });
    expect(code === 1 ? checked.stderr : checked.stdout).toContain(
      code === 1 ? `refused (${says})` : `revoked  ${says}`,
    );
  });
});
