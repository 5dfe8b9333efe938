// The seam between rows and changes: whenever a client joins, leaves, comes back or lags behind, and whatever happens in the
// database, its rows and the changes after them equal SELECT, and no change is applied twice or left out. In one process, and
// with two gateways and a Redis that loses its stream.

import { Redis } from 'ioredis';
import { afterEach, describe, expect, test } from 'vitest';
import { startRedis } from '#deploy/local/redis.ts';
import { Gateway } from '#gateway/gateway.ts';
import { Listener } from '#listener/listener.ts';
import { RedisPublisher, RedisTail } from '#shared/log/fanout-redis.ts';
import type { Pool } from '#shared/postgres/postgres.ts';
import { gatewaySchema, listenerSchema, readConfig } from '#shared/process/config.ts';
import { createLog } from '#shared/process/logger.ts';
import { createRegistry, gatewayMetrics, listenerMetrics } from '#shared/process/metrics.ts';
import { parsePosition } from '#shared/wire.ts';
import { testPool } from '../../support/servers/pool.ts';
import { createDatabase } from '../../support/servers/servers.ts';
import { startEmbedded } from '../../support/stage/embedded.ts';
import {
  bigStatement,
  Client,
  columns,
  keys,
  oneOf,
  Picture,
  type Random,
  type Request,
  randomFrom,
  requestOf,
  write,
} from '../../support/truth/seam.ts';
import { until } from '../../support/wait.ts';

const writers = 4;
const rounds = 100;
const clients = 20;
/** small, so that a slow client has only the kernel's buffers, and the ring holds a few statements */
const tight = { MAX_QUEUE_BYTES: '16384', RING_BYTES: '65536' };

const cleanups: (() => Promise<unknown>)[] = [];
afterEach(async () => {
  for (const cleanUp of cleanups.splice(0).toReversed()) await cleanUp();
});

interface Served {
  urls: string[];
  /** faults, by the round in which they happen */
  mishaps?: Record<number, () => Promise<unknown>>;
  metric(name: string): Promise<number>;
}

async function play(seed: number, databaseUrl: string, served: Served): Promise<Client[]> {
  const pool = testPool(databaseUrl, writers + 2);
  cleanups.push(() => pool.end());
  const game: { round: number; failure?: Error } = { round: 0 };
  const reached = (n: number) =>
    until(
      `round ${n}`,
      () => {
        if (game.failure) throw game.failure;
        return game.round >= Math.min(n, rounds);
      },
      50_000,
    );
  const writer = async (random: Random) => {
    const db = await pool.connect();
    try {
      while (game.round < rounds && !game.failure) {
        game.round++;
        await served.mishaps?.[game.round]?.();
        await write(db, random);
      }
    } finally {
      db.release();
    }
  };
  const longTransaction = async () => {
    const db = await pool.connect();
    try {
      await reached(rounds / 8);
      await db.query('begin');
      await db.query(`insert into todo select g, 3, 'open', 60, now(), 'long' from generate_series(5000, 5100) g`);
      await reached(rounds / 2);
      await db.query(`update todo set status = 'done' where id between 5000 and 5050`);
      await reached((rounds * 3) / 4);
      await db.query('commit');
    } finally {
      db.release();
    }
  };
  const client = async (client: Client, random: Random) => {
    await reached(random(rounds / 2));
    await client.join(oneOf(random, served.urls));
    while (game.round < rounds && !game.failure) {
      const kind = random(4);
      await reached(game.round + 5 + random(rounds / 5));
      if (kind === 0) {
        client.pause();
        await reached(game.round + 10 + random(rounds / 3));
        client.resume();
      } else if (kind < 3) {
        client.leave();
        if (kind === 1) await reached(game.round + random(rounds / 5));
        await client.join(oneOf(random, served.urls));
      }
      if (client.failure) throw client.failure;
    }
  };
  const all = Array.from({ length: clients }, (_, i) => {
    const random = randomFrom(seed * 1_000 + i);
    const requests = new Map<string, Request>();
    for (let n = 1 + random(3); n > 0; n--) {
      const request = requestOf(random);
      requests.set(JSON.stringify([request.sql, [...new Set(request.columns)].sort()]), request);
    }
    return { client: new Client([...requests.values()].map((request) => new Picture(request))), random };
  });
  cleanups.push(async () => {
    for (const { client } of all) client.leave();
  });
  await Promise.all(
    [
      ...Array.from({ length: writers }, (_, i) => writer(randomFrom(seed + i))),
      longTransaction(),
      ...all.map(({ client: who, random }) => client(who, random)),
    ].map((work) =>
      work.catch((error: Error) => {
        game.failure ??= error;
      }),
    ),
  );
  if (game.failure) throw game.failure;
  // one client reads nothing until its next change is in no memory any more
  const sleeper = new Client([
    new Picture({ table: 'todo', sql: 'true' }),
    new Picture({ table: 'todo', where: { id: { gt: 0 } }, sql: 'id > 0' }),
    new Picture({ table: 'todo', where: { id: { gt: 1 } }, sql: 'id > 1' }),
  ]);
  cleanups.push(async () => sleeper.leave());
  const rewrite = (length: number) =>
    pool.query(
      `insert into todo select g, 1, 'open', g, now(), repeat('x', $1) from generate_series(1, ${bigStatement}) g on conflict (id) do update set note = excluded.note || todo.grp`,
      [length],
    );
  await sleeper.join(served.urls[0]!);
  await until('the sleeper is live', () => sleeper.pictures.every(({ from }) => from !== null), 10_000);
  sleeper.pause();
  await until(
    'the sleeper lags behind',
    async () => {
      await rewrite(500);
      return (await served.metric('plank_catching_up')) > 0;
    },
    20_000,
  );
  await rewrite(1_000);
  await rewrite(1_000);
  const end = await numbered(pool);
  await until('no memory has its next change', () => allAt(served.urls, end), 20_000);
  sleeper.resume();
  const everyone = [...all.map(({ client }) => client), sleeper];
  await quiet(pool, everyone);
  for (const { pictures } of everyone) for (const picture of pictures) await compare(pool, picture);
  return everyone;
}

/** The seq of the last change, once everything that was committed has one. */
async function numbered(pool: Pool): Promise<number> {
  let end = 0;
  await until(
    'every change has its seq',
    async () => {
      const { rows } = await pool.query(
        // clients get no canaries, and a position after one may come a minute later
        `select (select max(seq) from plank.read_log(l.next_seq - 100) where action <> 'C') as seq,
           (select count(*) from plank.between(l.snap, pg_current_snapshot())) as open
         from plank.leader l`,
      );
      end = Number(rows[0].seq);
      return rows[0].open === '0';
    },
    10_000,
  );
  return end;
}

async function allAt(urls: string[], end: number): Promise<boolean> {
  const healths = await Promise.all(urls.map((url) => fetch(`${url}/health`)));
  const positions = await Promise.all(healths.map((health) => health.json() as Promise<{ position: string }>));
  return positions.every(({ position }) => parsePosition(position)!.seq >= end);
}

async function quiet(pool: Pool, everyone: Client[]): Promise<void> {
  const end = await numbered(pool);
  const behind = () =>
    everyone.flatMap(({ failure, pictures }) => {
      if (failure) throw failure;
      return pictures.filter(({ seq, from }) => from === null || seq < end);
    });
  await until(`every subscription is at ${end}`, () => behind().length === 0, 40_000).catch((error: Error) => {
    const some = behind().map(({ seq, from, rows, request }) => ({ seq, from, rows: rows.size, request }));
    throw new Error(`${error.message}; lagging: ${JSON.stringify(some)}`);
  });
}

async function compare(pool: Pool, { request, rows }: Picture): Promise<void> {
  const { table } = request;
  const wanted = new Set([...(request.columns ?? columns[table]), ...keys[table]]);
  const list = columns[table].filter((name) => wanted.has(name)).join(', ');
  const { rows: answer } = await pool.query<{ text: string }>(
    `select to_json(r)::text as text from (select ${list} from ${table} where ${request.sql}) r`,
  );
  const expected = answer.map(({ text }) => JSON.stringify(JSON.parse(text))).sort();
  expect([...rows.values()].sort(), JSON.stringify(request)).toEqual(expected);
}

async function prepared(): Promise<string> {
  const database = await createDatabase();
  cleanups.push(() => database.drop());
  const pool = testPool(database.url, 1);
  await pool.query(
    `create table todo (id int primary key, grp int, status text, price numeric, at timestamptz, note text);
     create table pair (a int, b text, n int, doc jsonb, primary key (b, a));
     select plank.attach('todo'), plank.attach('pair');
     insert into todo select g, g % 9, 'open', g % 100, '2026-01-03T00:00:00Z', 'n' || g from generate_series(1, 1500) g;
     insert into pair select g, 'x', g % 6 from generate_series(1, 50) g;`,
  );
  await pool.end();
  return database.url;
}

const resyncs = (everyone: Client[]) => everyone.flatMap(({ pictures }) => pictures.flatMap(({ reasons }) => reasons));

describe('rows and changes fit together', () => {
  test('rows and changes fit together in one process', async () => {
    const databaseUrl = await prepared();
    const embedded = await startEmbedded(databaseUrl, tight);
    cleanups.push(() => embedded.stop());
    const served = {
      urls: [embedded.url],
      metric: async (name: string) => valueOf(await embedded.registry.metrics(), name),
    };
    const everyone = await play(7, databaseUrl, served);
    expect(resyncs(everyone)).toEqual([]);
    expect(await served.metric('plank_snapshots_total')).toBeGreaterThan(clients / 2);
    // at least one client lagged behind further than memory reaches
    expect(await served.metric('plank_fallback_reads_total')).toBeGreaterThan(0);
  });

  test('rows and changes fit together with two gateways and a Redis that loses its data', async () => {
    const databaseUrl = await prepared();
    const redis = await startRedis();
    cleanups.push(() => redis.stop());
    const log = createLog('silent', 'test', 'test');
    const settings = { NODE_NAME: 'test', PORT: '0', ...tight, REDIS_URL: redis.url, DATABASE_URL: databaseUrl };
    const publisher = new RedisPublisher(redis.url, { name: 'plank', streamBytes: 1024 ** 2, log });
    cleanups.push(() => publisher.stop());
    const listener = new Listener({
      config: readConfig(listenerSchema, settings),
      publisher,
      log,
      metrics: listenerMetrics(createRegistry('listener')),
    });
    cleanups.push(() => listener.stop());
    await listener.start();
    const registries = ['gateway-1', 'gateway-2'].map(createRegistry);
    const urls: string[] = [];
    for (const registry of registries) {
      const tail = new RedisTail(redis.url, { name: 'plank', log });
      cleanups.push(() => tail.stop());
      const gateway = new Gateway({
        config: readConfig(gatewaySchema, settings),
        tail,
        log,
        metrics: gatewayMetrics(registry),
      });
      cleanups.push(() => gateway.stop());
      await gateway.start();
      urls.push(`http://127.0.0.1:${gateway.port}`);
    }
    const vandal = new Redis(redis.url);
    cleanups.push(async () => vandal.disconnect());
    const everyone = await play(11, databaseUrl, {
      urls,
      mishaps: {
        [Math.round(rounds / 3)]: () => vandal.flushall(),
        [Math.round((rounds * 2) / 3)]: async () => expect(await vandal.del('{plank}:stream')).toBe(1),
      },
      metric: async (name) => {
        const texts = await Promise.all(registries.map((registry) => registry.metrics()));
        return texts.reduce((sum, text) => sum + valueOf(text, name), 0);
      },
    });
    expect(resyncs(everyone)).toEqual([]);
  });
});

function valueOf(metrics: string, name: string): number {
  const line = metrics.split('\n').find((line) => line.startsWith(`${name}{`) || line.startsWith(`${name} `));
  if (line === undefined) throw new Error(`there is no metric ${name}`);
  return Number(line.slice(line.lastIndexOf(' ') + 1));
}
