// A silent connection to Postgres is given up soon if it has died, and kept while Postgres works. One process without Redis reports to
// operators and clients that changes cannot arrive.

import type { Socket } from 'node:net';
import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import { createPlank } from '#client/plank-client.ts';
import { Catalog } from '#gateway/catalog/catalog.ts';
import { LogReader } from '#shared/log/log-reader.ts';
import type { Pool, PoolClient } from '#shared/postgres/postgres.ts';
import { RowCursor } from '#shared/postgres/row-cursor.ts';
import { answered } from '#shared/postgres/silence.ts';
import { admin } from '../../support/servers/admin.ts';
import { testPool } from '../../support/servers/pool.ts';
import { createDatabase, type TestDatabase } from '../../support/servers/servers.ts';
import { type Embedded, startEmbedded } from '../../support/stage/embedded.ts';
import { TcpProxy } from '../../support/stage/tcp-proxy.ts';
import { until } from '../../support/wait.ts';

const longMs = 60_000;
const soonMs = 7_000;
let database: TestDatabase;
let direct: Pool;

beforeAll(async () => {
  database = await createDatabase();
  direct = testPool(database.url);
});
afterAll(async () => {
  await direct.end();
  await database.drop();
});

/** A pool of the test's own, so that tests can run at the same time. */
class Setting {
  readonly #stack: AsyncDisposableStack;
  readonly #clients: PoolClient[] = [];
  readonly pool: Pool;
  readonly proxy: TcpProxy;

  private constructor(stack: AsyncDisposableStack, proxy: TcpProxy) {
    this.#stack = stack;
    this.proxy = proxy;
    this.pool = testPool(proxy.through(database.url));
    stack.defer(() => this.pool.end());
    stack.defer(() => {
      for (const client of this.#clients) client.release(new Error('used'));
      proxy.pass();
    });
  }

  static async create(): Promise<Setting> {
    const stack = new AsyncDisposableStack();
    const proxy = await TcpProxy.start(database.url);
    stack.defer(() => proxy.stop());
    return new Setting(stack, proxy);
  }

  /** The open connections die without a close; new ones work. */
  lose(): void {
    this.proxy.blackhole();
    this.proxy.pass();
  }

  async ask(sql: string): Promise<{ answer: () => Promise<unknown> }> {
    const one = await this.pool.connect();
    this.#clients.push(one);
    // other connections of the pool die as well
    const idle = await this.pool.connect();
    idle.release();
    return { answer: () => answered(one.query(sql), one, this.pool, longMs) };
  }

  [Symbol.asyncDispose](): Promise<void> {
    return this.#stack.disposeAsync();
  }
}

async function failsSoon(work: Promise<unknown>): Promise<void> {
  const began = performance.now();
  await expect(work).rejects.toThrow('silent');
  expect(performance.now() - began).toBeLessThan(soonMs);
}

const running = (sql: string) => async () =>
  (await direct.query(`select from pg_stat_activity where state = 'active' and query = $1`, [sql])).rowCount === 1;

test.concurrent('a query is given up soon when the request is lost', async () => {
  await using setting = await Setting.create();
  const { answer } = await setting.ask('select 1');
  setting.lose();
  await failsSoon(answer());
});

test.concurrent('a query is given up soon when the answer is lost after Postgres has worked', async () => {
  await using setting = await Setting.create();
  const sql = 'select pg_sleep(2)';
  const { answer } = await setting.ask(sql);
  const failing = failsSoon(answer());
  await until('the query runs', running(sql), 5_000);
  setting.lose();
  await failing;
});

test.concurrent('a query is given up when Postgres is gone without a close, even if no connection can be opened', async () => {
  await using setting = await Setting.create();
  const { answer } = await setting.ask('select pg_sleep(30)');
  const failing = answer();
  failing.catch(() => {});
  await until('the query runs', running('select pg_sleep(30)'), 5_000);
  setting.proxy.blackhole();
  const began = performance.now();
  await expect(failing).rejects.toThrow('silent');
  expect(performance.now() - began).toBeLessThan(10_000);
  await direct.query(`select pg_terminate_backend(pid) from pg_stat_activity where query = 'select pg_sleep(30)'`);
});

test.concurrent('a query is not given up while Postgres works or waits for a lock', async () => {
  await using setting = await Setting.create();
  const [working, waiting] = [
    await setting.ask('select pg_sleep(3.5)'),
    await setting.ask('select from plank.migrations limit 1'),
  ];
  const holder = await direct.connect();
  try {
    await holder.query('begin; lock table plank.migrations in access exclusive mode');
    const waits = waiting.answer();
    // longer than the allowed silence
    await working.answer();
    await holder.query('rollback');
    expect(await waits).toMatchObject({ rowCount: 1 });
  } finally {
    await holder.query('rollback');
    holder.release();
  }
});

test.concurrent('a read of the log fails soon, and the next one succeeds', async () => {
  await using setting = await Setting.create();
  const reader = new LogReader(setting.pool);
  const { newest } = await reader.extent();
  await reader.page(newest, 10);
  setting.lose();
  await failsSoon(reader.page(newest, 10));
  expect(await reader.page(newest, 10)).toEqual([]);
});

test.concurrent.each([
  ['the attached tables', (catalog: Catalog) => catalog.load()],
  ['the excluded columns', (catalog: Catalog) => catalog.loadFormer()],
])('a lost query of %s fails soon', async (_, load) => {
  await using setting = await Setting.create();
  const catalog = new Catalog(setting.pool);
  await load(catalog);
  setting.lose();
  const began = performance.now();
  await expect(load(catalog)).rejects.toThrow();
  expect(performance.now() - began).toBeLessThan(soonMs);
});

test('a query on a connection that Postgres has ended is given up soon, even between two fetches', async () => {
  await using setting = await Setting.create();
  const { pool } = setting;
  const client = await pool.connect();
  client.on('error', () => {});
  try {
    const query = {
      text: 'select repeat($1, 10) from generate_series(1, 100)',
      values: ['x'],
      rowMode: 'array',
    } as const;
    const cursor = new RowCursor<[string]>(client, query, 1_000, ([text]) => text.length);
    expect((await answered(cursor.fetch(10), client, pool, longMs)).rows).toHaveLength(10);
    const { processID } = client as unknown as { processID: number };
    await direct.query('select pg_terminate_backend($1)', [processID]);
    await until('the connection has ended', () => (client.connection.stream as Socket).destroyed, 5_000);
    await expect(answered(cursor.fetch(10), client, pool, longMs)).rejects.toThrow();
    // a query that never settles fails as well
    await failsSoon(answered(new Promise(() => {}), client, pool, longMs));
  } finally {
    client.release(new Error('it has ended'));
  }
});

describe.concurrent('one process without Redis', () => {
  const cases: [
    string,
    { reason: RegExp; cut: (on: Embedded, to: TcpProxy) => unknown; heal: (on: Embedded, to: TcpProxy) => unknown },
  ][] = [
    [
      'the listener has ended',
      {
        reason: /^no listener leads \(\d+ s\)$/,
        cut: (embedded) => embedded.stopListener(),
        heal: (embedded) => embedded.startListener(),
      },
    ],
    [
      'Postgres hangs',
      {
        reason: /^neither Postgres nor a listener confirms that changes arrive$/,
        cut: (_embedded, toPostgres) => toPostgres.blackhole(),
        heal: (_embedded, toPostgres) => toPostgres.pass(),
      },
    ],
  ];
  test.each(cases)(
    'health and the SDK report that changes cannot arrive because %s',
    async (_cause, { reason, cut, heal }) => {
      await using stack = new AsyncDisposableStack();
      const own = await createDatabase();
      stack.defer(() => own.drop());
      const toPostgres = await TcpProxy.start(own.url);
      stack.defer(() => toPostgres.stop());
      const embedded = await startEmbedded(toPostgres.through(own.url), { LEASE_MS: '1000' });
      stack.defer(() => embedded.stop());
      const plank = createPlank({ url: `${embedded.url}/ws` });
      stack.defer(() => plank.close());
      const query = plank.table('items').live();
      await query.ready;
      // a probe waits 1 s, the console longer
      const bodyOf = async (path: string, url = embedded.url, ms = 1_000) => {
        const answer = await fetch(url + path, { signal: AbortSignal.timeout(ms) });
        return { http: answer.status, ...((await answer.json()) as object) } as { http: number; level?: string };
      };
      const state = async () => {
        const [{ http }, { level }] = [await bodyOf('/health'), await bodyOf('/ops/status', embedded.opsUrl, 3_000)];
        return `${http} ${level}`;
      };
      await until('all is well', async () => (await state()) === '200 good', 5_000);

      await cut(embedded, toPostgres);
      await until('health and status report it', async () => (await state()) === '503 bad', 8_000);
      expect(await bodyOf('/health')).toMatchObject({ status: 'degraded', reason: expect.stringMatching(reason) });
      // no other replica could serve its clients
      expect((await bodyOf('/health/ready')).http).toBe(200);
      await until('the SDK reports it', () => query.state === 'stale', 10_000);

      await heal(embedded, toPostgres);
      await until('all is well again', async () => query.state === 'live' && (await state()) === '200 good', 10_000);
      await admin(own.url, `insert into items (name, value) values ('x', 1)`);
      await until('a change arrives', () => query.rows.size === 1, 5_000);
    },
  );
});
