// Migrations: by several processes at once, a second time, and by another release; and the error of a start without them.

import { execFile } from 'node:child_process';
import { randomBytes } from 'node:crypto';
import { promisify } from 'node:util';
import { afterEach, expect, test } from 'vitest';
import { migrate, requireMigrated } from '#shared/postgres/migrate.ts';
import { admin } from '../../support/servers/admin.ts';
import { postgresUrl } from '../../support/servers/servers.ts';

const run = promisify(execFile);
const cleanups: (() => Promise<unknown>)[] = [];

afterEach(async () => {
  for (const cleanup of cleanups.splice(0)) await cleanup();
});

/** A database with nothing in it. */
async function emptyDatabase(): Promise<string> {
  const url = await postgresUrl();
  const name = `plank_test_migrate_${randomBytes(6).toString('hex')}`;
  await admin(url, `create database ${name}`);
  cleanups.push(() => admin(url, `drop database ${name} with (force)`));
  const own = new URL(url);
  own.pathname = `/${name}`;
  return own.href;
}

async function applied(url: string): Promise<Record<string, string>[]> {
  return admin(url, 'select number, name, checksum, applied_at::text from plank.migrations order by number');
}

/** `npm run migrate` without npm: its output and its exit code. */
async function runMigrate(env: Record<string, string>): Promise<{ code: number; stdout: string; stderr: string }> {
  try {
    const output = await run(process.execPath, ['shared/postgres/migrate-cli.ts'], {
      env: { PATH: process.env.PATH, ...env },
      timeout: 30_000,
    });
    return { code: 0, ...output };
  } catch (error) {
    const { code, stdout, stderr } = error as { code: number; stdout: string; stderr: string };
    return { code, stdout, stderr };
  }
}

test('one of four processes migrates an empty database, and the others find it done', async () => {
  const url = await emptyDatabase();
  const ran = await Promise.all(Array.from({ length: 4 }, () => runMigrate({ DATABASE_URL: url })));
  expect(ran.map((each) => [each.code, each.stderr])).toEqual(ran.map(() => [0, '']));
  const output = ran.map((each) => each.stdout);
  expect(output.filter((text) => text.includes('applying 001_tables.sql'))).toHaveLength(1);
  expect(output.filter((text) => /^the database is up to date \(\d+ migrations\)\n$/.test(text))).toHaveLength(3);
  await requireMigrated(url);
  expect(await admin(url, 'select name from plank.attached')).toEqual([]);
});

test('a second migration changes nothing', async () => {
  const url = await emptyDatabase();
  await migrate(url);
  const before = await applied(url);
  expect(before.length).toBeGreaterThan(5);
  await migrate(url);
  expect(await applied(url)).toEqual(before);
});

test('a database of another release is refused, and stays as it is', async () => {
  const url = await emptyDatabase();
  await migrate(url);
  await admin(url, "update plank.migrations set checksum = 'another' where number = 3");
  const before = await applied(url);
  await expect(migrate(url)).rejects.toThrow('migration 003_images.sql was applied in another version');
  const cli = await runMigrate({ DATABASE_URL: url });
  expect(cli.code).toBe(1);
  expect(cli.stderr).toMatch(/^plank migrate: migration 003_images.sql was applied in another version: .*\n$/);
  expect(await applied(url)).toEqual(before);
});

test('a migration that fails is undone and named, and the next attempt resumes there', async () => {
  const url = await emptyDatabase();
  await admin(
    url,
    `create function no() returns event_trigger language plpgsql as $$ begin
       if exists (select from pg_event_trigger_ddl_commands() where object_identity like 'plank.canary%') then raise 'not here'; end if; end $$;
     create event trigger no on ddl_command_end execute function no()`,
  );
  await expect(migrate(url)).rejects.toThrow(/^migration 011_canary.sql failed: not here/);
  expect((await applied(url)).at(-1)).toMatchObject({ number: 10 });
  expect(await admin(url, "select to_regproc('plank.canary') as left")).toEqual([{ left: null }]);
  await admin(url, 'drop event trigger no');
  const said: string[] = [];
  await migrate(url, { log: (message) => said.push(message) });
  expect([said[0], said.at(-1)]).toEqual(['applying 011_canary.sql', 'the database is ready']);
  await requireMigrated(url);
});

test('the error for a database that is not migrated says what to do', async () => {
  const url = await emptyDatabase();
  await expect(requireMigrated(url)).rejects.toThrow(/no schema "plank".*run "npm run migrate"/);
  await admin(url, 'create schema plank; create table plank.leader ()');
  await expect(requireMigrated(url)).rejects.toThrow(/run "npm run migrate"/);
});

test('the error for a wrong DATABASE_URL is one line', async () => {
  const missing = await runMigrate({});
  expect(missing.code).toBe(1);
  expect(missing.stderr).toMatch(/^plank migrate: .*DATABASE_URL.*\n$/s);
  const url = new URL(await postgresUrl());
  url.pathname = '/there_is_no_such_database';
  const wrong = await runMigrate({ DATABASE_URL: url.href });
  expect(wrong).toEqual({
    code: 1,
    stdout: '',
    stderr: `plank migrate: there is no database "there_is_no_such_database" at ${url.host}: create it, or correct DATABASE_URL\n`,
  });
  await expect(requireMigrated(url.href)).rejects.toThrow('there_is_no_such_database');
});
