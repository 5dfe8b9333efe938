// The SDK against a real gateway and listener in this process, through a proxy that cuts: live
// queries, subscriptions and the iterator see what the database committed, each change once,
// whatever becomes of the connection.

import { createElement } from 'react';
import { renderToString } from 'react-dom/server';
import { afterAll, afterEach, beforeAll, beforeEach, describe, expect, test } from 'vitest';
import { createSource } from '#client/live/source.ts';
import { createPlank, type Plank, type PlankOptions, type Table } from '#client/plank-client.ts';
import { useLive } from '#client/react.ts';
import { Gateway } from '#gateway/gateway.ts';
import { Listener } from '#listener/listener.ts';
import { LocalFanout } from '#shared/log/fanout-local.ts';
import type { Pool } from '#shared/postgres/postgres.ts';
import { gatewaySchema, listenerSchema, readConfig } from '#shared/process/config.ts';
import { createLog } from '#shared/process/logger.ts';
import { createRegistry, gatewayMetrics, listenerMetrics } from '#shared/process/metrics.ts';
import { testPool } from '../../support/servers/pool.ts';
import { createDatabase } from '../../support/servers/servers.ts';
import { TcpProxy } from '../../support/stage/tcp-proxy.ts';
import { until } from '../../support/wait.ts';

interface Stock {
  id: number;
  name: string;
  count: number | null;
}

const stack = new AsyncDisposableStack();
const clients: Plank[] = [];
const log = createLog('silent', 'test', 'test');
let pool: Pool;
let proxy: TcpProxy;
let url: string;
let mark = 0;

beforeAll(async () => {
  const database = await createDatabase();
  stack.defer(() => database.drop());
  pool = testPool(database.url);
  stack.defer(() => pool.end());
  await pool.query(`
    create table stock (id integer primary key, name text not null, count integer);
    create table prices (n numeric primary key, note text);
    create table pairs (a bigint, b text, note text, primary key (b, a));
    create table marks (id integer generated always as identity primary key);
    select plank.attach('stock'), plank.attach('prices'), plank.attach('pairs'), plank.attach('marks');`);
  const tail = new LocalFanout();
  const config = readConfig(listenerSchema, {
    DATABASE_URL: database.url,
    LOG_LEVEL: 'silent',
    CANARY_INTERVAL_MS: '0',
  });
  const listener = new Listener({ config, publisher: tail, log, metrics: listenerMetrics(createRegistry('test')) });
  stack.defer(() => listener.stop());
  await listener.start();
  const gatewayConfig = readConfig(gatewaySchema, { DATABASE_URL: database.url, NODE_NAME: 'gw', PORT: '0' });
  const gateway = new Gateway({ config: gatewayConfig, tail, log, metrics: gatewayMetrics(createRegistry('gw')) });
  stack.defer(() => gateway.stop());
  await gateway.start();
  proxy = await TcpProxy.start(`http://localhost:${gateway.port}`);
  stack.defer(() => proxy.stop());
  url = proxy.through(`http://localhost:${gateway.port}/ws`);
  const witness = createPlank({ url: `http://localhost:${gateway.port}/ws` });
  stack.defer(() => witness.close());
  const marks = witness.table<{ id: number }>('marks').live();
  marks.subscribe(() => (mark = Math.max(mark, ...[...marks.rows.values()].map(({ id }) => id))));
  await marks.ready;
});

/**
 * The gateway has passed on whatever has been committed so far: positions that are given from now
 * on lie behind it.
 */
async function passedOn(): Promise<void> {
  const { rows } = await pool.query<{ id: number }>(`insert into marks default values returning id`);
  await until('the gateway is beyond what was done', () => mark === rows[0]!.id, 5_000);
}

beforeEach(async () => {
  await pool.query('delete from stock; delete from pairs');
  await passedOn();
});
afterEach(() => {
  for (const client of clients.splice(0)) client.close();
});
afterAll(() => stack.disposeAsync());

function connect(options: PlankOptions = {}): Plank {
  const plank = createPlank({ url, ...options });
  clients.push(plank);
  return plank;
}

const stockOf = (plank: Plank): Table<Stock> => plank.table<Stock>('stock');
const insert = (first: number, last: number) =>
  pool.query('insert into stock select i, $3 || i, i from generate_series($1::int, $2::int) i', [first, last, 'item ']);

/** What the database says now. */
async function selected(where = 'true'): Promise<Map<number, Stock>> {
  const { rows } = await pool.query<Stock>(`select id, name, count from stock where ${where} order by id`);
  return new Map(rows.map((row) => [row.id, row]));
}

const sorted = (rows: ReadonlyMap<unknown, Stock>) =>
  new Map([...rows.values()].sort((a, b) => a.id - b.id).map((row) => [row.id, row]));

describe('a live query', () => {
  test('a live query has the rows that the filter admits, and follows their changes', async () => {
    await insert(1, 5);
    const few = stockOf(connect()).live({ count: { lt: 4 } });
    await few.ready;
    expect(sorted(few.rows)).toEqual(await selected('count < 4'));
    await pool.query('update stock set count = 100 where id = 2');
    await pool.query('update stock set count = 0 where id = 5');
    await pool.query('delete from stock where id = 1');
    await until('the rows follow', () => few.rows.size === 2 && few.rows.has(5), 5_000);
    expect(sorted(few.rows)).toEqual(await selected('count < 4'));
    await pool.query('truncate stock');
    await until('they are gone', () => few.rows.size === 0, 5_000);
  });

  test('a live query never shows the middle of a transaction', async () => {
    await insert(1, 2);
    const live = stockOf(connect()).live();
    const sums = new Set<number>();
    await live.ready;
    live.subscribe(() => sums.add([...live.rows.values()].reduce((sum, { count }) => sum + (count ?? 0), 0)));
    for (let i = 1; i <= 20; i++)
      await pool.query(
        `begin; update stock set count = count - ${i} where id = 1; update stock set count = count + ${i} where id = 2; commit`,
      );
    await until('all have come', () => live.rows.get(2)?.count === 2 + 210, 5_000);
    expect([...sums]).toEqual([3]);
  });

  test('a live query equals the table after connections were cut during writes', async () => {
    const plank = connect();
    const live = stockOf(plank).live();
    await live.ready;
    for (let round = 0; round < 5; round++) {
      await insert(round * 100 + 1, round * 100 + 100);
      proxy.cut();
      await pool.query('update stock set count = count + 1 where id % 7 = $1', [round]);
      await pool.query('delete from stock where id % 11 = $1', [round]);
    }
    await insert(1_000, 1_000);
    await until('the last row is there', () => live.rows.has(1_000), 20_000);
    expect(sorted(live.rows)).toEqual(await selected());
  });

  test('live queries with the same filter share their rows', async () => {
    await insert(1, 3);
    const plank = connect();
    const [a, b] = [stockOf(plank).live({ count: 2 }), stockOf(plank).live({ count: { eq: 2 } })];
    await Promise.all([a.ready, b.ready]);
    expect(a.rows).toBe(b.rows);
    a.close();
    await pool.query('delete from stock where id = 2');
    await until('the other one follows', () => b.rows.size === 0, 5_000);
  });

  test('a live query tells composite keys and keys beyond 2^53 apart', async () => {
    await pool.query(`insert into pairs values (9007199254740993, 'x', 'one'), (9007199254740992, 'x', 'two')`);
    const live = connect().table<{ note: string }>('pairs').live();
    await live.ready;
    await pool.query(`update pairs set note = 'changed' where a = 9007199254740993`);
    const note = () => live.rows.get('{"a":9007199254740993,"b":"x"}')?.note;
    await until('the right one is changed', () => note() === 'changed', 5_000);
    expect(live.rows.size).toBe(2);
  });

  test('a live query tells numeric keys apart that a JavaScript number would merge', async () => {
    await pool.query('insert into prices values (0.1), (0.1000000000000000055), (1.0), (123456789012345678.5)');
    const live = connect().table('prices').live();
    await live.ready;
    const exact = '0.1000000000000000055';
    expect(new Set(live.rows.keys())).toEqual(new Set([0.1, exact, 1, '123456789012345678.5']));
    await pool.query(`update prices set note = 'changed' where n = ${exact}; update prices set n = 1.00 where n = 1`);
    await until('the right one is changed', () => live.rows.get(exact)?.['note'] === 'changed', 5_000);
    await pool.query(`delete from prices where n = 0.1; insert into prices values (1.00000000000000000001)`);
    await until('the new one is there', () => live.rows.has('1.00000000000000000001'), 5_000);
    expect(new Set(live.rows.keys())).toEqual(new Set([exact, 1, '123456789012345678.5', '1.00000000000000000001']));
  });

  test('a live query that is refused rejects with the reason', async () => {
    const live = connect().table('nothing').live();
    await expect(live.ready).rejects.toMatchObject({ code: 'UNKNOWN_TABLE' });
    expect(live).toMatchObject({ state: 'ended', error: { code: 'UNKNOWN_TABLE' } });
  });
});

describe('a live query of too many rows', () => {
  test('a live query of too many rows ends with an error, without reading them all', async () => {
    await pool.query(`insert into stock select i, repeat('x', 500) from generate_series(1, 5000) i`);
    const plank = connect();
    const [few, all] = [stockOf(plank).live({ where: {}, maxRows: 100 }), stockOf(plank).live()];
    await expect(few.ready).rejects.toMatchObject({ code: 'TOO_MANY_ROWS' });
    expect(few).toMatchObject({ state: 'ended', error: { message: expect.stringContaining('maxRows') } });
    await all.ready;
    expect(all.rows.size).toBe(5_000);
  });

  test('a live query ends when its rows become too many, and calls its watchers', async () => {
    await insert(1, 3);
    const plank = connect();
    const live = stockOf(plank).live({ where: {}, maxRows: 4 });
    await live.ready;
    let calls = 0;
    live.subscribe(() => calls++);
    await insert(4, 4);
    await until('it has four', () => live.rows.size === 4, 5_000);
    await insert(5, 5);
    await until('it has ended', () => live.state === 'ended', 5_000);
    expect([live.error, calls]).toMatchObject([{ code: 'TOO_MANY_ROWS' }, 2]);
    // the next query begins again
    await pool.query('delete from stock where id > 4');
    await passedOn();
    const next = stockOf(plank).live({ where: {}, maxRows: 4 });
    await next.ready;
    expect(next.rows.size).toBe(4);
  });
});

describe('a subscription', () => {
  test('a subscription without an answer is sent again on another connection', async () => {
    const errors: string[] = [];
    const plank = connect({ answerTimeoutMs: 300, onError: ({ message }) => errors.push(message) });
    stockOf(plank).subscribe({}, {});
    await until('it is open', () => plank.state === 'open', 5_000);
    proxy.holdReplies();
    const other = stockOf(plank).subscribe({ where: { count: 1 } }, {});
    await until('it gives up', () => errors.length > 0, 5_000);
    proxy.pass();
    await until('it is live', () => other.state === 'live', 10_000);
    expect(errors[0]).toBe('a request was not answered within 300 ms');
  });

  test('a subscription whose answer comes late, after the rows of another, is not given up', async () => {
    await pool.query(`insert into stock select i, repeat('x', 500) from generate_series(1, 4000) i`);
    await passedOn();
    const errors: string[] = [];
    let pages = 0;
    class Watched extends WebSocket {
      constructor(url: string, protocol: string) {
        super(url, protocol);
        this.addEventListener('message', ({ data }) => (pages += Number(/^.{0,9}"rows"/.test(data as string))));
      }
    }
    const plank = connect({
      answerTimeoutMs: 500,
      WebSocket: Watched,
      onError: ({ message }) => errors.push(message),
    });
    const small = plank.table('pairs');
    await small.live().ready;
    proxy.throttle(1_000_000);
    try {
      const [connections, before] = [proxy.accepted, pages];
      const large = stockOf(plank).live();
      await until('the rows begin to come', () => pages > before, 5_000);
      const other = small.live({ note: 'none' });
      const started = performance.now();
      await other.ready;
      // by then it would have been given up
      expect(performance.now() - started).toBeGreaterThan(1_000);
      await large.ready;
      expect(large.rows.size).toBe(4_000);
      expect([proxy.accepted - connections, errors]).toEqual([0, []]);
    } finally {
      proxy.pass();
    }
  });

  test('a subscription that joins later gets its rows, and no change comes twice', async () => {
    await insert(1, 3);
    await passedOn();
    const items = stockOf(connect());
    const first: string[] = [];
    const second: string[] = [];
    const a = items.subscribe({}, { onChange: ({ id, pos }) => first.push(`${String(id)} ${pos}`) });
    await until('the first is live', () => a.state === 'live', 5_000);
    await insert(4, 4);
    let rows = 0;
    const onSnapshot = (all: readonly Stock[]) => (rows = all.length);
    const b = items.subscribe(
      { snapshot: true },
      { onSnapshot, onChange: ({ id, pos }) => second.push(`${String(id)} ${pos}`) },
    );
    await insert(5, 6);
    await until('both are live', () => a.state === 'live' && b.state === 'live', 5_000);
    await insert(7, 7);
    await until('both have the last', () => first.length === 4 && second.at(-1) === first.at(-1), 5_000);
    expect(first.map((text) => text.split(' ')[0])).toEqual(['4', '5', '6', '7']);
    expect(rows + second.length).toBe(7);
  });

  test('a subscription resumes from a position that another client stored', async () => {
    const worker = stockOf(connect()).subscribe({}, {});
    await until('it is live', () => worker.state === 'live', 5_000);
    const position = worker.position()!;
    worker.unsubscribe();
    await insert(1, 3);
    const ids: unknown[] = [];
    stockOf(connect()).subscribe({ from: position }, { onChange: ({ id }) => ids.push(id) });
    await until('it has what it missed', () => ids.length === 3, 5_000);
    expect(ids).toEqual([1, 2, 3]);
  });

  test('the SDK fetches a token before each connection', async () => {
    let asked = 0;
    const plank = connect({ token: () => Promise.resolve(`token ${++asked}`) });
    stockOf(plank).subscribe({}, {});
    await until('it is open', () => plank.state === 'open', 5_000);
    proxy.cut();
    await until('it has gone', () => plank.state !== 'open', 5_000);
    await until('it is open again', () => plank.state === 'open', 10_000);
    expect(asked).toBe(2);
  });
});

describe('a filter written in another way', () => {
  test('two filters that the server finds equal share a subscription, and both get every change', async () => {
    await insert(1, 3);
    const items = stockOf(connect());
    const errors: unknown[] = [];
    const live = items.live({ count: { gte: 2 } });
    await live.ready;
    const seen: unknown[] = [];
    const other = items.subscribe(
      { where: { and: [{ count: { gte: 2 } }] }, snapshot: true },
      {
        onSnapshot: (rows) => seen.push(...rows.map(({ id }) => id)),
        onChange: ({ id }) => seen.push(id),
        onError: (error) => errors.push(error),
      },
    );
    await until('it is live', () => other.state === 'live', 5_000);
    await insert(4, 4);
    await until('both have it', () => live.rows.has(4) && seen.includes(4), 5_000);
    expect(seen).toEqual([2, 3, 4]);
    expect(errors).toEqual([]);
  });
});

describe('the iterator', () => {
  test('the iterator pauses at its bound and loses no change, even when the connection is cut', async () => {
    const items = stockOf(connect());
    const from = await new Promise<string>((resolve) => {
      const subscription = items.subscribe(
        {},
        { onState: (state) => state === 'live' && queueMicrotask(() => resolve(subscription.position()!)) },
      );
    });
    const changes = items.changes({ from, bufferSize: 10 });
    await insert(1, 300);
    const seen: unknown[] = [];
    for await (const { id } of changes) {
      seen.push(id);
      if (seen.length === 100) proxy.cut();
      if (seen.length === 300) break;
    }
    expect(seen).toEqual(Array.from({ length: 300 }, (_, i) => i + 1));
  });

  test('the iterator ends with its signal', async () => {
    const end = new AbortController();
    const changes = stockOf(connect()).changes({ signal: end.signal });
    const next = changes.next();
    end.abort();
    expect(await next).toEqual({ done: true, value: undefined });
  });
});

describe('the hook', () => {
  test('the hook renders nothing on a server, and subscribes to nothing', () => {
    const plank = connect();
    const Count = () => createElement('b', null, useLive(stockOf(plank), { where: { count: 1 } }).rows.size);
    expect(renderToString(createElement(Count))).toBe('<b>0</b>');
    expect(plank.state).toBe('idle');
  });

  test('the hook has a new Map for each drawing, and the same one in between', async () => {
    await insert(1, 1);
    const source = createSource(() => stockOf(connect()).live());
    let draws = 0;
    const end = source.subscribe(() => draws++);
    await until('it is ready', () => source.current().isReady && source.current().rows.size === 1, 5_000);
    const before = source.current();
    expect(source.current()).toBe(before);
    await insert(2, 2);
    await until('it has drawn', () => source.current().rows.size === 2, 5_000);
    expect(before.rows.size).toBe(1);
    end();
    expect(draws).toBeGreaterThan(1);
  });
});
