// The doctor on settings and policies: what is open, what can be guessed, and what allows nothing.

import { Client } from 'pg';
import { afterAll, beforeAll, beforeEach, expect, test } from 'vitest';
import { type AccessSettings, examineAccess } from '#deploy/doctor/access.ts';
import { createDatabase, type TestDatabase } from '../../support/servers/servers.ts';
import { allow, own } from '../../support/stage/policies.ts';

const secret = 'Zx8-dhQ2_w0LrTt5_Vb9nGk3_pYc7eAs1';
const jwt = { AUTH: 'jwt', AUTH_JWT_SECRET: secret, AUTH_AUDIENCE: 'shop', AUTH_ISSUER: 'us', HOST: 'localhost' };

let database: TestDatabase;
let client: Client;

beforeAll(async () => {
  database = await createDatabase();
  client = new Client({ connectionString: database.url });
  await client.connect();
});
beforeEach(() =>
  client.query(`
    drop table if exists notes;
    create table notes (id integer primary key, owner text, secret text, body text);
    select plank.attach('notes');
    ${allow('items', { read: {} })}
    ${allow('notes', { read: own })}`),
);
afterAll(async () => {
  await client?.end();
  await database?.drop();
});

async function found(settings: AccessSettings): Promise<string[]> {
  const findings: string[] = [];
  for await (const { level, says } of examineAccess(client, database.url, settings)) findings.push(`${level}: ${says}`);
  return findings;
}

test('nothing is wrong where clients need tokens and each table has a policy', async () => {
  expect(await found(jwt)).toEqual(['ok: clients are authenticated (AUTH=jwt)', 'ok: 2 policies can be used']);
});

test.each([
  [{ ...jwt, AUTH_AUDIENCE: undefined }, 'warning: AUTH_AUDIENCE is not set'],
  [{ ...jwt, AUTH_ISSUER: undefined }, 'warning: AUTH_ISSUER is not set'],
  [{ ...jwt, AUTH_JWT_SECRET: 'short' }, 'fault: AUTH_JWT_SECRET is shorter than 32 bytes'],
  [{ ...jwt, AUTH_JWT_SECRET: 'ab'.repeat(20) }, 'warning: AUTH_JWT_SECRET has fewer than 16 different characters'],
  [{ AUTH: 'off', HOST: '::' }, 'fault: clients are not authenticated (AUTH=off)'],
  [{ AUTH: 'off', HOST: 'localhost' }, 'note: clients are not authenticated (AUTH=off)'],
  [{ AUTH: 'off', HOST: 'localhost' }, 'warning: 2 policies have no effect, because AUTH is off'],
  [{ AUTH: 'on', HOST: 'localhost' }, 'fault: AUTH is neither off nor jwt'],
  [{ HOST: 'localhost' }, 'note: AUTH is not set here'],
])('settings are examined: %j', async (settings, finding) => {
  const findings = await found(settings);
  expect(findings).toContainEqual(expect.stringContaining(finding));
  expect(findings.join()).not.toContain(secret);
});

test('an attached table without a policy is invisible to all clients', async () => {
  await client.query("select plank.forbid('notes', 'authenticated')");
  expect(await found(jwt)).toContain('warning: no client can see notes: attached, but without a policy (AUTH=jwt)');
});

test('a policy that cannot be used is named', async () => {
  await client.query(`${allow('notes', { read: { secret: 's' } })} alter table notes drop column secret`);
  const findings = await found(jwt);
  expect(findings).toContainEqual(
    expect.stringMatching(
      /^fault: the policy of notes for the role authenticated cannot be used, so it allows nothing: /,
    ),
  );
  expect(findings.join()).not.toContain('can be used,');
});

test('the problem of a policy whose list of columns names a missing column is named', async () => {
  await client.query(
    `${allow('notes', { read: own, reads: ['owner', 'secret'] })} alter table notes drop column secret`,
  );
  expect((await found(jwt)).join('\n')).toMatch(/notes for the role authenticated .*secret/);
});
