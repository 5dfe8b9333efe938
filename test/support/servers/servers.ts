// Owns the addresses of the run's Postgres and Redis for test files, and each file's own database. What must stay true: all
// files of a run share the servers, so a test that stops, kills or empties one starts its own (`startPostgres`, `startRedis`
// in deploy/local).

import { randomBytes } from 'node:crypto';
import { inject } from 'vitest';
import { admin } from './admin.ts';
import type { Answers } from './global-setup.ts';

export interface TestDatabase {
  url: string;
  name: string;
  /** Ends the database's sessions and drops it. Idempotent. The end of the run does the same. */
  drop(): Promise<void>;
}

/** A superuser's URL of a Postgres with fsync off, or PLANK_TEST_DATABASE_URL. */
export async function postgresUrl(): Promise<string> {
  return (await ask('postgres')).url;
}

/** PLANK_TEST_REDIS_URL, or the run's Redis. It is shared: use keys of your own. */
export async function redisUrl(): Promise<string> {
  return (await ask('redis')).url;
}

/** The path of Chromium's program (deploy/local/chromium.ts). */
export async function chromiumPath(): Promise<string> {
  return (await ask('chromium')).path;
}

/** A new database with Plank's schema and the sample table, copied from a template. */
export async function createDatabase(): Promise<TestDatabase> {
  const { url, template, prefix } = await ask('template');
  const name = prefix + randomBytes(6).toString('hex');
  await admin(url, `create database ${name} template ${template}`);
  const own = new URL(url);
  own.pathname = `/${name}`;
  const drop = async () => {
    await admin(url, `drop database if exists ${name} with (force)`);
  };
  return { url: own.href, name, drop };
}

async function ask<Name extends keyof Answers>(name: Name): Promise<Answers[Name]> {
  const servers: string | undefined = inject('servers');
  if (servers === undefined)
    throw new Error('this vitest project lacks globalSetup: test/support/servers/global-setup.ts');
  const response = await fetch(`${servers}/${name}`);
  const text = await response.text();
  if (!response.ok) throw new Error(text);
  return JSON.parse(text) as Answers[Name];
}
