// The figures of operators while Postgres hangs: they show soon that it does not answer, and for how long.

import { afterAll, beforeAll, expect, test } from 'vitest';
import { LogFigures } from '#gateway/ops/log-figures.ts';
import { LocalFanout } from '#shared/log/fanout-local.ts';
import { createPool } from '#shared/postgres/postgres.ts';
import { createDatabase } from '../../support/servers/servers.ts';
import { TcpProxy } from '../../support/stage/tcp-proxy.ts';
import { until } from '../../support/wait.ts';

const stack = new AsyncDisposableStack();
let proxy: TcpProxy;
let figures: LogFigures;

beforeAll(async () => {
  const database = await createDatabase();
  stack.defer(() => database.drop());
  proxy = await TcpProxy.start(database.url);
  stack.defer(() => proxy.stop());
  const pool = createPool(proxy.through(database.url), {
    applicationName: 'plank test',
    statementTimeoutMs: 1_500,
    max: 1,
    onError: () => {},
  });
  stack.defer(() => pool.end());
  figures = new LogFigures(pool, new LocalFanout());
});

afterAll(() => stack.disposeAsync());

async function refreshed(): Promise<number> {
  const startedAt = performance.now();
  await figures.refresh(0);
  return performance.now() - startedAt;
}

test('a Postgres that hangs counts as silent after two seconds, and ever longer, until it answers', async () => {
  await figures.refresh(0);
  expect(figures.log).toMatchObject({ leader: null, term: 0 });
  expect(figures.postgresSilentMs).toBe(0);
  proxy.blackhole();
  expect(await refreshed()).toBeLessThan(3_000);
  expect(figures.log).toBe(null);
  const silentMs = figures.postgresSilentMs;
  expect(silentMs).toBeGreaterThan(1_000);
  // the first connection is given up meanwhile, and the next one hangs longer; no refresh waits for it
  await until(
    'Postgres is silent for longer',
    async () => {
      expect(await refreshed()).toBeLessThan(1_500);
      return figures.postgresSilentMs > silentMs + 3_000;
    },
    10_000,
  );
  proxy.pass();
  await until('Postgres answers', async () => (await refreshed(), figures.postgresSilentMs === 0), 10_000);
  expect(figures.log).not.toBe(null);
});
