// What an application may do to the SDK without harm to itself: throw wherever it is called, let go
// at any moment, ask with dates and bigints, change its objects later.

import { afterAll, afterEach, beforeAll, expect, test, vi } from 'vitest';
import { createPlank, type Plank, type PlankOptions } from '#client/plank-client.ts';
import { admin } from '../../support/servers/admin.ts';
import { createDatabase, type TestDatabase } from '../../support/servers/servers.ts';
import { type Embedded, startEmbedded } from '../../support/stage/embedded.ts';
import { TcpProxy } from '../../support/stage/tcp-proxy.ts';
import { until } from '../../support/wait.ts';

interface Item {
  id: number | bigint;
  name: string;
}

const stack = new AsyncDisposableStack();
const clients: Plank[] = [];
const large = 9_007_199_254_740_993n;
let database: TestDatabase;
let plank: Embedded;
let proxy: TcpProxy;

beforeAll(async () => {
  database = await createDatabase();
  stack.defer(() => database.drop());
  await admin(
    database.url,
    `create table parts (id bigint primary key, name text, at timestamptz);
     select plank.attach('parts');
     insert into parts values (1, 'old', '2020-01-01Z'), (${large - 1n}, 'less', '2026-01-01Z'), (${large}, 'more', '2026-06-01Z')`,
  );
  plank = await startEmbedded(database.url);
  stack.defer(() => plank.stop());
  proxy = await TcpProxy.start(plank.url);
  stack.defer(() => proxy.stop());
});
afterEach(() => {
  for (const client of clients.splice(0)) client.close();
});
afterAll(() => stack.disposeAsync());

function parts(options: PlankOptions = {}) {
  const client = createPlank({ url: `${proxy.through(plank.url)}ws`, ...options });
  clients.push(client);
  return { client, table: client.table<Item>('parts') };
}

const names = (rows: ReadonlyMap<unknown, Item>) => [...rows.values()].map(({ name }) => name).sort();

test('dates in filters are compared as instants, and make different subscriptions', async () => {
  const { table } = parts();
  const since = (year: string) => table.live({ at: { gt: new Date(`${year}-03-01Z`) as unknown as string } });
  const [early, late] = [since('2019'), since('2026')];
  await Promise.all([early.ready, late.ready]);
  expect([names(early.rows), names(late.rows)]).toEqual([['less', 'more', 'old'], ['more']]);
});

test('a key beyond 2^53 can be used in a filter as it came', async () => {
  const { table } = parts();
  const one = table.live({ id: large });
  const some = table.live({ id: { in: [large, 1n] } });
  await Promise.all([one.ready, some.ready]);
  expect([names(one.rows), names(some.rows)]).toEqual([['more'], ['more', 'old']]);
  expect(() => table.live({ id: Number.NaN })).toThrow('where.id is NaN: JSON has no such value');
});

test('a filter that the application changes later stays the same, on the next connection as well', async () => {
  const { client, table } = parts();
  const where = { name: 'old' };
  const ids: unknown[] = [];
  const subscription = table.subscribe({ where, snapshot: true }, { onChange: ({ id }) => ids.push(id) });
  await until('it is live', () => subscription.state === 'live', 5_000);
  where.name = 'more';
  proxy.cut();
  await until('it has gone', () => client.state !== 'open', 5_000);
  await admin(
    database.url,
    `update parts set at = now() where name = 'more'; update parts set at = now() where name = 'old'`,
  );
  await until('what it asked for has come', () => ids.length > 0, 10_000);
  expect(ids).toEqual([1]);
});

test('a callback that throws, even onError, keeps no other from being called', async () => {
  const thrown: unknown[] = [];
  const inTurn = queueMicrotask;
  // where nobody catches it: the runner would
  vi.stubGlobal('queueMicrotask', (call: () => void) =>
    inTurn(() => {
      try {
        call();
      } catch (error) {
        thrown.push((error as Error).message);
      }
    }),
  );
  try {
    const fail = () => {
      throw new Error('from a handler');
    };
    const onError = () => {
      throw new Error('from onError');
    };
    const { client, table } = parts({ onError });
    client.onState(fail);
    const live = table.live({}, fail);
    let calls = 0;
    live.subscribe(fail);
    live.subscribe(() => calls++);
    await live.ready;
    await until('the last one was called', () => calls > 0, 5_000);
    expect(live.rows.size).toBe(3);
    client.close();
    expect(new Set(thrown)).toEqual(new Set(['from onError']));
  } finally {
    vi.unstubAllGlobals();
  }
});

test('a live query that is closed at once calls back no more', async () => {
  const { table } = parts();
  const first = table.live({});
  await first.ready;
  let calls = 0;
  table.live({}, () => calls++).close();
  table.live({}, () => calls++);
  await until('the other one was called', () => calls > 0, 5_000);
  expect(calls).toBe(1);
});

test('a token that is refused without a reason is reported', async () => {
  const errors: string[] = [];
  const { table } = parts({
    token: () => Promise.reject(),
    onError: ({ message }) => errors.push(message),
  });
  table.live({});
  await until('it is reported', () => errors.length > 0, 5_000);
  expect(errors[0]).toMatch(/^no connection to Plank \(no token: undefined\): attempt 1 failed/);
});
