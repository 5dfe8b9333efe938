// The seam between rows and changes: whenever a client joins, leaves, comes back or falls behind, while whatever happens in
// the database, its rows and the changes behind them give what SELECT gives, and no change is applied twice or left out.
// Embedded, and with two gateways behind a Redis that loses its stream.

import { Redis } from 'ioredis';
import { afterEach, describe, expect, test } from 'vitest';
import { WebSocket } from 'ws';
import { startRedis } from '../../deploy/local/redis.ts';
import { Gateway } from '../../services/gateway/gateway.ts';
import { Listener } from '../../services/listener/listener.ts';
import { gatewaySchema, listenerSchema, readConfig } from '../../shared/config.ts';
import { RedisPublisher, RedisTail } from '../../shared/fanout-redis.ts';
import { createLog } from '../../shared/log.ts';
import { createRegistry, gatewayMetrics, listenerMetrics } from '../../shared/metrics.ts';
import { createPool, type Pool, type PoolClient } from '../../shared/postgres.ts';
import { parsePosition, type ServerFrame } from '../../shared/wire.ts';
import { startEmbedded } from '../support/embedded.ts';
import { createDatabase } from '../support/servers.ts';
import { until } from '../support/wait.ts';

const writers = 4;
const rounds = 100;
const clients = 20;
const bigStatement = 3_000;
/** so small that the kernel's buffers are all that a slow client has, and the ring holds a few statements */
const tight = { MAX_QUEUE_BYTES: '16384', RING_BYTES: '65536' };

const cleanups: (() => Promise<unknown>)[] = [];
afterEach(async () => {
  for (const cleanUp of cleanups.splice(0).toReversed()) await cleanUp();
});

/** mulberry32: the same numbers for the same seed. */
function randomFrom(seed: number): (below: number) => number {
  let state = seed;
  return (below) => {
    state = (state + 0x6d2b79f5) | 0;
    let mixed = Math.imul(state ^ (state >>> 15), 1 | state);
    mixed = (mixed + Math.imul(mixed ^ (mixed >>> 7), 61 | mixed)) ^ mixed;
    return Math.floor((((mixed ^ (mixed >>> 14)) >>> 0) / 2 ** 32) * below);
  };
}
type Random = ReturnType<typeof randomFrom>;
const oneOf = <T>(random: Random, items: readonly T[]): T => items[random(items.length)]!;

interface Wish {
  table: 'todo' | 'pair';
  where?: object;
  sql: string;
  columns?: string[];
}

const keys = { todo: ['id'], pair: ['b', 'a'] };
const columns = { todo: ['id', 'grp', 'status', 'price', 'at', 'note'], pair: ['a', 'b', 'n', 'doc'] };

function wishOf(random: Random): Wish {
  const n = random(8);
  const wishes: Wish[] = [
    { table: 'todo', sql: 'true' },
    { table: 'todo', where: { grp: n }, sql: `grp = ${n}` },
    {
      table: 'todo',
      where: { grp: { in: [n, n + 1] }, status: 'open' },
      sql: `grp in (${n}, ${n + 1}) and status = 'open'`,
    },
    { table: 'todo', where: { price: { gt: 50.5 }, status: { ne: 'done' } }, sql: `price > 50.5 and status <> 'done'` },
    { table: 'todo', where: { or: [{ grp: n }, { status: null }] }, sql: `grp = ${n} or status is null` },
    { table: 'todo', where: { not: { status: 'open' } }, sql: `not (status = 'open')` },
    { table: 'todo', where: { at: { lt: '2026-01-05T00:00:00Z' } }, sql: `at < '2026-01-05T00:00:00Z'` },
    { table: 'pair', sql: 'true' },
    { table: 'pair', where: { b: 'x' }, sql: `b = 'x'` },
    { table: 'pair', where: { n: { gte: 3 }, a: { lt: 40 } }, sql: 'n >= 3 and a < 40' },
    { table: 'pair', where: { n: null }, sql: 'n is null' },
  ];
  const wish = oneOf(random, wishes);
  const all = columns[wish.table];
  return random(3) === 0 ? { ...wish, columns: all.filter(() => random(2) === 0).concat(all[0]!) } : wish;
}

/** What one subscription has made of its frames. Throws at the first that does not fit. */
class Picture {
  readonly wish: Wish;
  readonly rows = new Map<string, string>();
  readonly reasons: string[] = [];
  seq = 0;
  /** where it may go on: a position before the first `live` behind rows says nothing of what the rows already held */
  from: string | null = null;
  #state: 'rows' | 'changes' = 'rows';

  constructor(wish: Wish) {
    this.wish = wish;
  }

  get ask(): object {
    const { table, where, columns } = this.wish;
    return { table, where, columns, snapshot: true, ...(this.from === null ? {} : { from: this.from }) };
  }

  begin(): void {
    if (this.from === null) this.void();
  }

  void(): void {
    this.rows.clear();
    this.seq = 0;
    this.from = null;
    this.#state = 'rows';
  }

  take(frame: ServerFrame): void {
    try {
      this.#take(frame);
    } catch (cause) {
      throw new Error(
        `${(cause as Error).message}: ${JSON.stringify(this.wish)}, ${JSON.stringify(frame).slice(0, 400)}`,
        {
          cause,
        },
      );
    }
  }

  #take(frame: ServerFrame): void {
    switch (frame.type) {
      case 'rows':
        if (this.#state !== 'rows') throw new Error('rows behind the last rows');
        for (const row of frame.rows) {
          const key = this.#keyOf(row);
          if (this.rows.has(key)) throw new Error(`the row ${key} comes twice`);
          this.rows.set(key, JSON.stringify(row));
        }
        if (!frame.more) this.#state = 'changes';
        return;
      case 'live':
        if (this.#state !== 'changes') throw new Error('live before the last rows');
        this.passed(frame.pos);
        this.from = frame.pos;
        return;
      case 'change': {
        if (this.#state !== 'changes') throw new Error('a change before the last rows');
        const { seq } = parsePosition(frame.pos)!;
        if (seq <= this.seq) throw new Error(`not behind ${this.seq}`);
        this.seq = seq;
        if (this.from !== null) this.from = frame.pos;
        if (frame.id === null) return this.rows.clear();
        const key = this.#keyOf(keys[this.wish.table].length > 1 ? (frame.id as object) : { id: frame.id });
        if (this.rows.has(key) !== (frame.effect !== 'add'))
          throw new Error(this.rows.has(key) ? 'the row is there already' : 'there is no such row');
        if (frame.effect === 'remove') {
          if (frame.data !== undefined) throw new Error('tells of a row that is not for it');
          this.rows.delete(key);
        } else {
          if (this.#keyOf(frame.data!) !== key) throw new Error('the id is not that of the row');
          this.rows.set(key, JSON.stringify(frame.data));
        }
        return;
      }
      case 'resync':
        this.void();
        this.reasons.push(frame.reason);
        return;
      default:
        throw new Error('not for a subscription');
    }
  }

  /** Everything up to here has come. */
  passed(position: string): void {
    const { seq } = parsePosition(position)!;
    if (seq < this.seq) throw new Error(`${position} is before ${this.seq}`);
    this.seq = seq;
    if (this.from !== null) this.from = position;
  }

  #keyOf(row: object): string {
    return JSON.stringify(keys[this.wish.table].map((name) => (row as Record<string, unknown>)[name]));
  }
}

/** One client: its subscriptions on one connection at a time. */
class Client {
  readonly pictures: Picture[];
  failure: Error | undefined;
  #ws: WebSocket | undefined;

  constructor(pictures: Picture[]) {
    this.pictures = pictures;
  }

  /** Resolves when every subscription has its `ok`. */
  async join(url: string): Promise<void> {
    const channels = new Map<string, Picture>();
    let answered = 0;
    for (const picture of this.pictures) picture.begin();
    const ws = new WebSocket(`${url.replace('http', 'ws')}/ws`, 'plank.v1');
    this.#ws = ws;
    const take = (frame: ServerFrame) => {
      if (frame.type === 'ok') {
        channels.set(frame.ch!, this.pictures[frame.id - 1]!);
        answered++;
      } else if (frame.type === 'pos') for (const picture of this.pictures) picture.passed(frame.pos);
      else if (frame.type === 'error') throw new Error(JSON.stringify(frame));
      else if ('ch' in frame) channels.get(frame.ch)!.take(frame);
    };
    ws.on('message', (data) => {
      // what still comes on a connection that was left is of no use to the picture
      if (this.#ws !== ws || this.failure) return;
      try {
        take(JSON.parse((data as Buffer).toString()) as ServerFrame);
      } catch (error) {
        this.failure = error as Error;
      }
    });
    ws.on('close', (code) => {
      if (this.#ws === ws) this.failure ??= new Error(`closed with ${code}`);
    });
    ws.on('error', (error) => {
      if (this.#ws === ws) this.failure ??= error;
    });
    ws.on('open', () => {
      ws.send(JSON.stringify({ type: 'hello' }));
      this.pictures.forEach((picture, i) => {
        ws.send(JSON.stringify({ type: 'subscribe', id: i + 1, ...picture.ask }));
      });
    });
    await until('every subscription is answered', () => this.#ok && answered === this.pictures.length, 15_000);
  }

  leave(): void {
    const ws = this.#ws;
    this.#ws = undefined;
    ws?.terminate();
  }

  pause(): void {
    this.#ws?.pause();
  }

  resume(): void {
    this.#ws?.resume();
  }

  get #ok(): boolean {
    if (this.failure) throw this.failure;
    return true;
  }
}

/** One round of a writer; conflicts of writers with each other are part of it. */
async function write(db: PoolClient, random: Random): Promise<void> {
  const id = () => random(2_000);
  const text = () => `${random(1e9)}`.repeat(1 + random(40));
  const status = () => oneOf(random, [`'open'`, `'done'`, 'null']);
  const row = (n: string) =>
    `${n}, ${random(9)}, ${status()}, ${random(100)}.${random(100)}, '2026-01-0${1 + random(9)}T00:00:00.5Z', '${text()}'`;
  const doc = () => `'{"a": [${random(9)}, "${random(99)}"]}'`;
  const statements: (() => string)[] = [
    () =>
      `insert into todo values (${row(`${id()}`)}) on conflict (id) do update set status = excluded.status, note = excluded.note`,
    () =>
      `update todo set grp = ${random(9)}, price = price + 1 where id between ${id()} and ${id()} and grp = ${random(9)}`,
    () => `update todo set status = ${status()} where id % 13 = ${random(13)}`,
    () => `update todo set id = id + 2000 where id = ${id()}`,
    () => `update todo set id = id - 2000 where id in (select id from todo where id >= 2000 limit 3)`,
    () => `delete from todo where id % 31 = ${random(31)}`,
    () =>
      `insert into pair values (${random(60)}, '${oneOf(random, ['x', 'y'])}', ${oneOf(random, [random(6), 'null'])}, ${doc()}) on conflict do nothing`,
    () => `update pair set n = ${oneOf(random, [random(6), 'null'])}, doc = ${doc()} where a % 5 = ${random(5)}`,
    () => `update pair set b = case b when 'x' then 'y' else 'x' end where a = ${random(60)}`,
    () => `delete from pair where a = ${random(60)}`,
  ];
  const some = async (count: number) => {
    for (let i = 0; i < count; i++) await db.query(oneOf(random, statements)());
  };
  try {
    const kind = random(20);
    if (kind === 0) {
      // it waits for the long transaction, and everybody behind it
      await db.query(
        `begin; set local lock_timeout = '300ms'; truncate ${oneOf(random, ['pair', 'pair', 'todo'])}; commit`,
      );
    } else if (kind === 1)
      await db.query(
        `insert into todo select g, ${random(9)}, ${status()}, g % 100, '2026-01-01T00:00:00Z', '${text()}' from generate_series(1, ${bigStatement}) g on conflict (id) do update set note = excluded.note`,
      );
    else if (kind < 12) await some(1);
    else {
      await db.query('begin');
      await some(1 + random(3));
      if (kind < 17) {
        await db.query('savepoint a');
        await some(1 + random(3));
        await db.query(random(2) === 0 ? 'rollback to a' : 'release a');
        await some(1);
      }
      await db.query(kind === 19 ? 'rollback' : 'commit');
    }
  } catch (error) {
    const { code } = error as { code?: string };
    // a key that another has, a deadlock, a lock that is not to be had
    if (code !== '23505' && code !== '40P01' && code !== '55P03') throw error;
    await db.query('rollback');
  }
}

interface Served {
  urls: string[];
  /** what goes wrong in the middle, by the round in which it does */
  mishaps?: Record<number, () => Promise<unknown>>;
  metric(name: string): Promise<number>;
}

async function play(seed: number, databaseUrl: string, served: Served): Promise<Client[]> {
  const pool = createPool(databaseUrl, {
    applicationName: 'test',
    statementTimeoutMs: 30_000,
    max: writers + 2,
    onError: () => {},
  });
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
    const wishes = new Map<string, Wish>();
    for (let n = 1 + random(3); n > 0; n--) {
      const wish = wishOf(random);
      wishes.set(JSON.stringify([wish.sql, [...new Set(wish.columns)].sort()]), wish);
    }
    return { client: new Client([...wishes.values()].map((wish) => new Picture(wish))), random };
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
  // one reads nothing until what it lacks is in no memory any more
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
    'the sleeper is behind',
    async () => {
      await rewrite(500);
      return (await served.metric('plank_catching_up')) > 0;
    },
    20_000,
  );
  await rewrite(1_000);
  await rewrite(1_000);
  sleeper.resume();
  const everyone = [...all.map(({ client }) => client), sleeper];
  await quiet(pool, everyone);
  for (const { pictures } of everyone) for (const picture of pictures) await compare(pool, picture);
  return everyone;
}

async function quiet(pool: Pool, everyone: Client[]): Promise<void> {
  let end = 0;
  await until(
    'every change has its seq',
    async () => {
      const { rows } = await pool.query(
        'select l.next_seq - 1 as seq, (select count(*) from plank.between(l.snap, pg_current_snapshot())) as open from plank.leader l',
      );
      end = Number(rows[0].seq);
      return rows[0].open === '0';
    },
    10_000,
  );
  const behind = () =>
    everyone.flatMap(({ failure, pictures }) => {
      if (failure) throw failure;
      return pictures.filter(({ seq, from }) => from === null || seq < end);
    });
  await until(`every subscription is at ${end}`, () => behind().length === 0, 20_000).catch((error: Error) => {
    const some = behind().map(({ seq, from, rows, wish }) => ({ seq, from, rows: rows.size, wish }));
    throw new Error(`${error.message}; behind are ${JSON.stringify(some)}`);
  });
}

async function compare(pool: Pool, { wish, rows }: Picture): Promise<void> {
  const { table } = wish;
  const wanted = new Set([...(wish.columns ?? columns[table]), ...keys[table]]);
  const list = columns[table].filter((name) => wanted.has(name)).join(', ');
  const { rows: answer } = await pool.query<{ text: string }>(
    `select to_json(r)::text as text from (select ${list} from ${table} where ${wish.sql}) r`,
  );
  const expected = answer.map(({ text }) => JSON.stringify(JSON.parse(text))).sort();
  expect([...rows.values()].sort(), JSON.stringify(wish)).toEqual(expected);
}

async function prepared(): Promise<string> {
  const database = await createDatabase();
  cleanups.push(() => database.drop());
  const pool = createPool(database.url, {
    applicationName: 'test',
    statementTimeoutMs: 20_000,
    max: 1,
    onError: () => {},
  });
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
  test('embedded', async () => {
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
    // somebody was further behind than memory reaches
    expect(await served.metric('plank_fallback_reads_total')).toBeGreaterThan(0);
  });

  test('with two gateways behind a Redis that loses what it has', async () => {
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
