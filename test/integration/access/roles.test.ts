// The least rights in Postgres, as deploy/postgres/roles.sql grants them: a listener and a gateway do all of their work with them, and
// can do nothing else.

import { mkdtemp, readFile, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, beforeAll, expect, test } from 'vitest';
import { Cluster } from '#deploy/local/cluster.ts';
import { type LocalPostgres, startPostgres } from '#deploy/local/postgres.ts';
import { migrate } from '#shared/postgres/migrate.ts';
import { admin } from '../../support/servers/admin.ts';
import { overWebSocket } from '../../support/stage/frames.ts';
import { until } from '../../support/wait.ts';

const stack = new AsyncDisposableStack();
let postgres: LocalPostgres;
let cluster: Cluster;

const as = (role: string) => {
  const url = new URL(postgres.url);
  url.username = role;
  url.password = 'secret of tests';
  return url.href;
};

const grant = async () => admin(postgres.url, await readFile('deploy/postgres/roles.sql', 'utf8'));

beforeAll(async () => {
  const folder = await mkdtemp(join(tmpdir(), 'plank-roles-'));
  stack.defer(() => rm(folder, { recursive: true, force: true }));
  postgres = await startPostgres({ dataDir: join(folder, 'postgres'), fsync: false });
  stack.defer(() => postgres.stop());
  await migrate(postgres.url);
  await admin(
    postgres.url,
    `create schema sales; create table orders (id serial primary key, note text);
     create table sales.parts (id bigint generated always as identity primary key, n int);
     create table private (id int primary key);
     select plank.attach('orders'); select plank.attach('sales.parts')`,
  );
  await grant();
  // again: it may run at any time
  await grant();
  for (const role of ['plank_listener', 'plank_gateway'])
    await admin(postgres.url, `alter role ${role} password 'secret of tests'`);
  cluster = await Cluster.start({
    gateways: 1,
    listeners: 1,
    balanced: false,
    databaseUrl: postgres.url,
    listenerEnv: { DATABASE_URL: as('plank_listener'), RETENTION_MS: '3000' },
    gatewayEnv: { DATABASE_URL: as('plank_gateway') },
  });
  stack.defer(() => cluster.stop());
}, 60_000);
afterAll(() => stack.disposeAsync());

test('the listener and the gateway work with the rights of roles.sql', async () => {
  const { url } = cluster.gateways[0]!;
  const reader = await overWebSocket(url, { table: 'orders', snapshot: true });
  expect(await reader.rows()).toEqual([]);
  await reader.expect('live');
  const create = async (path: string, body: object) => {
    const response = await fetch(`${url}/api/${path}`, {
      method: 'POST',
      headers: { 'content-type': 'application/json' },
      body: JSON.stringify(body),
    });
    return { status: response.status, body: (await response.json()) as { id: number } };
  };
  const order = await create('orders', { note: 'a' });
  expect(order).toMatchObject({ status: 201, body: { note: 'a' } });
  expect(await create('sales.parts', { n: 1 })).toMatchObject({ status: 201, body: { n: 1 } });
  expect(await reader.expect('change')).toMatchObject({ action: 'INSERT', data: { note: 'a' } });
  await admin(postgres.url, `update orders set note = 'b'; alter table orders add column more int`);
  expect(await reader.expect('change')).toMatchObject({ action: 'UPDATE', data: { note: 'b' } });
  expect(await reader.expect('resync')).toMatchObject({ reason: 'shape' });
  expect((await fetch(`${url}/api/orders/${order.body.id}`, { method: 'DELETE' })).status).toBe(204);
  const health = (await (await fetch(`${url}/health`)).json()) as object;
  expect(health).toMatchObject({ status: 'ok', database: 'connected' });
  // the listener purges, too
  await until(
    'old changes are purged',
    async () => (await admin(postgres.url, 'select oldest > 1 as purged from plank.extent()'))[0]!.purged as never,
    20_000,
  );
  for (const node of [...cluster.listeners, ...cluster.gateways])
    expect(node.logTail(500)).not.toMatch(/permission denied|insufficient/);
});

test.each([
  ['plank_gateway', 'delete from plank.outbox'],
  ['plank_gateway', `insert into plank.outbox (relation, action) values (1, 'S')`],
  ['plank_gateway', 'update plank.leader set term = term + 1'],
  ['plank_gateway', `select plank.attach('private')`],
  ['plank_gateway', `select plank.detach('orders')`],
  ['plank_gateway', 'select from private'],
  ['plank_gateway', 'truncate orders'],
  ['plank_gateway', 'drop table orders'],
  ['plank_listener', 'select from orders'],
  ['plank_listener', 'select from private'],
  ['plank_listener', `update orders set note = 'x'`],
  ['plank_listener', `select plank.detach('orders')`],
  ['plank_listener', 'drop table plank.outbox'],
])('%s may not: %s', async (role, sql) => {
  await expect(admin(as(role), sql)).rejects.toThrow(/permission denied|must be owner/);
});
