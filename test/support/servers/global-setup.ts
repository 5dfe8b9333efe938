// Owns the servers that all test files of a run share, and the browser's program. What must stay true:
// - a server starts when the first test needs it, once for all projects and workers, and ends with the run;
// - nothing stays on a server that was there before: the run drops its databases at its end.
//
// This is a vitest `globalSetup` file. Workers ask it over HTTP, because only this process lives as long as the run.

import { randomBytes } from 'node:crypto';
import { mkdtemp, rm } from 'node:fs/promises';
import { createServer } from 'node:http';
import type { AddressInfo } from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import type { TestProject } from 'vitest/node';
import { findChromium } from '#deploy/local/chromium.ts';
import { startPostgres } from '#deploy/local/postgres.ts';
import { migrate } from '#shared/postgres/migrate.ts';
import { makeSample } from '#shared/postgres/sample.ts';
import { admin } from './admin.ts';
import { startTestRedis } from './test-redis.ts';

declare module 'vitest' {
  interface ProvidedContext {
    /** The URL at which `servers.ts` asks for the run's servers. */
    servers: string;
  }
}

/** The answer to each request of a worker. */
export interface Answers {
  postgres: { url: string };
  /** Names of the run's databases begin with `prefix`; `template` is migrated, has the sample table, and nothing connects to it. */
  template: { url: string; template: string; prefix: string };
  redis: { url: string };
  chromium: { path: string };
}

type Cleanup = () => Promise<void>;

class Servers {
  readonly #cleanups: Cleanup[] = [];
  readonly #prefix = `plank_test_${randomBytes(4).toString('hex')}_`;
  readonly answers: { [name in keyof Answers]: () => Promise<Answers[name]> } = {
    postgres: once(() => this.#postgres()),
    template: once(() => this.#template()),
    redis: once(() => this.#redis()),
    chromium: once(async () => ({ path: await findChromium() })),
  };

  async #postgres(): Promise<Answers['postgres']> {
    const given = process.env.PLANK_TEST_DATABASE_URL;
    if (given) return { url: given };
    const dataDir = await mkdtemp(join(tmpdir(), 'plank-test-postgres-'));
    this.#cleanups.push(() => rm(dataDir, { recursive: true, force: true }));
    const settings = { full_page_writes: 'off', max_prepared_transactions: '20' };
    const postgres = await startPostgres({ dataDir, fsync: false, settings });
    this.#cleanups.push(() => postgres.stop());
    return { url: postgres.url };
  }

  async #template(): Promise<Answers['template']> {
    const { url } = await this.answers.postgres();
    const template = `${this.#prefix}template`;
    await admin(url, `create database ${template}`);
    this.#cleanups.push(() => this.#dropAll(url));
    const ofTemplate = new URL(url);
    ofTemplate.pathname = `/${template}`;
    await migrate(ofTemplate.href);
    await makeSample(ofTemplate.href);
    // a database with sessions cannot be copied
    await admin(url, `alter database ${template} allow_connections false`);
    return { url, template, prefix: this.#prefix };
  }

  async #dropAll(url: string): Promise<void> {
    const names = await admin(url, `select datname from pg_database where starts_with(datname, '${this.#prefix}')`);
    for (const { datname } of names) await admin(url, `drop database if exists ${datname} with (force)`);
  }

  async #redis(): Promise<Answers['redis']> {
    const redis = await startTestRedis();
    this.#cleanups.push(() => redis.stop());
    return { url: redis.url };
  }

  async stop(): Promise<void> {
    for (const cleanup of this.#cleanups.toReversed()) await cleanup();
  }
}

function once<T>(start: () => Promise<T>): () => Promise<T> {
  let started: Promise<T> | undefined;
  return () => (started ??= start());
}

interface Run {
  url: string;
  servers: Servers;
  users: number;
  stop(): Promise<void>;
}

async function startRun(): Promise<Run> {
  const servers = new Servers();
  const http = createServer((request, response) => {
    const name = (request.url ?? '').slice(1);
    const answer = name in servers.answers ? servers.answers[name as keyof Answers]() : Promise.reject(new Error(name));
    answer.then(
      (found) => response.end(JSON.stringify(found)),
      (error: Error) => response.writeHead(500).end(error.message),
    );
  });
  await new Promise<void>((resolve) => http.listen(0, '127.0.0.1', resolve));
  return {
    servers,
    url: `http://127.0.0.1:${(http.address() as AddressInfo).port}`,
    users: 0,
    async stop() {
      http.closeAllConnections();
      await new Promise((resolve) => http.close(resolve));
      await servers.stop();
    },
  };
}

// each project loads this file again, and all share one run
const shared = globalThis as { plankTestRun?: Promise<Run> };

export default async function setup(project: TestProject): Promise<Cleanup> {
  shared.plankTestRun ??= startRun();
  const run = await shared.plankTestRun;
  run.users += 1;
  project.provide('servers', run.url);
  // starts to fetch Chromium early, where it must be fetched; the first test that needs it reports a failure
  if (project.name === 'e2e') run.servers.answers.chromium().catch(() => {});
  return async () => {
    run.users -= 1;
    if (run.users > 0) return;
    delete shared.plankTestRun;
    await run.stop();
  };
}
