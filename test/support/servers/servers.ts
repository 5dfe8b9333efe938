// Owns what a test file knows of the run's Postgres and Redis: their addresses, and a database of its own. What must stay
// true: the servers are shared by all files of a run, so a test that stops, kills or empties one starts its own
// (`startPostgres`, `startRedis` in deploy/local).

import { randomBytes } from 'node:crypto';
import { inject } from 'vitest';
import { admin } from './admin.ts';
import type { Answers } from './global-setup.ts';

export interface TestDatabase {
  url: string;
  name: string;
  /** Ends its sessions and drops it. Idempotent; the end of the run does it too. */
  drop(): Promise<void>;
}

/** Postgres with fsync off, or PLANK_TEST_DATABASE_URL: a superuser's, of no database in particular. */
export async function postgresUrl(): Promise<string> {
  return (await ask('postgres')).url;
}

/** PLANK_TEST_REDIS_URL, or a Redis of the run. It is shared: use keys of your own. */
export async function redisUrl(): Promise<string> {
  return (await ask('redis')).url;
}

/** The program of a browser (deploy/local/chromium.ts). */
export async function chromiumPath(): Promise<string> {
  return (await ask('chromium')).path;
}

/** A fresh database with Plank's schema, copied from a template. */
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
