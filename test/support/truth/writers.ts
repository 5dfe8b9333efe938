// Owns the load for tests of the order of changes: concurrent transactions over few hot rows, with savepoints, rollbacks, and one
// long transaction always open. Each update raises `ver` of its row by one, so that the published versions show changes that
// were lost, doubled or out of order.

import { setTimeout as delay } from 'node:timers/promises';
import type { Client } from 'pg';
import { session } from './capture.ts';

const hotRows = 12;

/** Makes and attaches the tables `hot` and, for statements of many rows, `bulk`. */
export const hotTables = `
  create table hot (k integer primary key, ver integer not null default 0);
  insert into hot select g from generate_series(1, ${hotRows}) g;
  create table bulk (id bigint generated always as identity primary key, run integer not null);
  create table burnt (x integer);
  select plank.attach('hot'), plank.attach('bulk')`;

const random = (below: number) => Math.floor(Math.random() * below);

export class HotWriters {
  readonly #stop = new AbortController();
  readonly #done: Promise<unknown>;

  /** `bulkRows`: the number of rows of an occasional large statement. */
  constructor(url: string, options: { writers: number; bulkRows?: number }) {
    const loops = Array.from({ length: options.writers }, () => this.#loop(url, write));
    loops.push(this.#loop(url, writeLong));
    if (options.bulkRows) loops.push(this.#loop(url, (client) => writeBulk(client, options.bulkRows!)));
    this.#done = Promise.all(loops);
    this.#done.catch(() => {});
  }

  /** Resolves when the last transaction has ended. Rejects with the error of any transaction. */
  async stop(): Promise<void> {
    this.#stop.abort();
    await this.#done;
  }

  async #loop(url: string, transaction: (client: Client) => Promise<void>): Promise<void> {
    const client = await session(url);
    try {
      while (!this.#stop.signal.aborted) await transaction(client);
    } finally {
      await client.end();
    }
  }
}

async function write(client: Client): Promise<void> {
  await client.query('begin');
  // assigns an xid long before the first change is captured
  if (random(3) === 0) await client.query('insert into burnt values (1)');
  await delay(random(8));
  const rows = new Set(Array.from({ length: 1 + random(3) }, () => 1 + random(hotRows)));
  // locks rows in the order of keys, so that writers never deadlock
  for (const k of [...rows].sort((a, b) => a - b)) {
    const guarded = random(4) === 0;
    if (guarded) await client.query('savepoint s');
    await client.query('update hot set ver = ver + 1 where k = $1', [k]);
    if (guarded && random(3) === 0) await client.query('rollback to s');
    if (random(3) === 0) await delay(random(6));
  }
  await client.query(random(10) === 0 ? 'rollback' : 'commit');
  await delay(random(10));
}

async function writeLong(client: Client): Promise<void> {
  await client.query('begin; insert into burnt values (2)');
  await delay(200 + random(800));
  await client.query('insert into bulk (run) values (0); commit');
}

async function writeBulk(client: Client, rows: number): Promise<void> {
  await delay(300 + random(500));
  await client.query('insert into bulk (run) select $1 from generate_series(1, $1)', [rows]);
}
