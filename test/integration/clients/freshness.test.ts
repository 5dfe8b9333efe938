// Silence must not look like health. For each fault that keeps changes from clients: the answers of /health and /health/ready, and
// that the SDK becomes stale. For each fault that does not: that nothing is reported. Canaries are off, so that no test relies on them.

import { setTimeout as delay } from 'node:timers/promises';
import { afterAll, afterEach, beforeAll, beforeEach, describe, expect, test } from 'vitest';
import type { LiveQuery, Plank, SubscriptionState } from '#client/plank-client.ts';
import { createPlank } from '#client/plank-client.ts';
import { Cluster, type ClusterNode } from '#deploy/local/cluster.ts';
import { admin } from '../../support/servers/admin.ts';
import { createDatabase, redisUrl } from '../../support/servers/servers.ts';
import { health, tellOnFailure } from '../../support/stage/nodes.ts';
import { TcpProxy } from '../../support/stage/tcp-proxy.ts';
import { until } from '../../support/wait.ts';

/** a lease of 1 s, 3 s without a confirmation, a position that was due within 8 s, and room */
const staleMs = 14_000;
const freshMs = 8_000;

interface Health {
  status: string;
  http: number;
  listener: string;
  stale_ms: number;
  changes: string;
  reason?: string;
}

const stack = new AsyncDisposableStack();
let cluster: Cluster;
let first: ClusterNode;
let second: ClusterNode;
let databaseUrl: string;
/** one between each kind of process (or the first gateway) and a server */
const proxies: Record<'listenerPostgres' | 'listenerRedis' | 'firstPostgres' | 'postgres' | 'redis', TcpProxy> =
  {} as never;
const planks: Plank[] = [];

beforeAll(async () => {
  const database = await createDatabase();
  stack.defer(() => database.drop());
  databaseUrl = database.url;
  const redis = await redisUrl();
  const to = async (url: string) => {
    const proxy = await TcpProxy.start(url);
    stack.defer(() => proxy.stop());
    return proxy;
  };
  for (const name of ['listenerPostgres', 'firstPostgres', 'postgres'] as const) proxies[name] = await to(database.url);
  for (const name of ['listenerRedis', 'redis'] as const) proxies[name] = await to(redis);
  const gatewayEnv = {
    REDIS_URL: proxies.redis.through(redis),
    DATABASE_URL: proxies.firstPostgres.through(database.url),
  };
  cluster = await Cluster.start({
    gateways: 1,
    balanced: false,
    databaseUrl: database.url,
    redisUrl: redis,
    env: { PLANK_LOG_NAME: database.name, LEASE_MS: '1000', CANARY_INTERVAL_MS: '0' },
    listenerEnv: {
      REDIS_URL: proxies.listenerRedis.through(redis),
      DATABASE_URL: proxies.listenerPostgres.through(database.url),
    },
    gatewayEnv,
  });
  stack.defer(() => cluster.stop());
  gatewayEnv.DATABASE_URL = proxies.postgres.through(database.url);
  second = await cluster.addGateway();
  first = cluster.gateways[0]!;
  await admin(database.url, `create table watched (id bigint primary key, name text)`);
  await admin(database.url, `select plank.attach('watched')`);
  const knows = async (node: ClusterNode) => (await fetch(`${node.url}/api/watched`)).ok;
  await until('both know the table', async () => (await knows(first)) && (await knows(second)), freshMs);
});

beforeEach(() => tellOnFailure(() => [...cluster.listeners, ...cluster.gateways]));

afterEach(() => {
  for (const plank of planks.splice(0)) plank.close();
  for (const proxy of Object.values(proxies)) proxy.pass();
});

afterAll(() => stack.disposeAsync());

/** The answer of /health, which comes within a probe's deadline, whether Postgres answers or not. */
async function healthOf(node: ClusterNode): Promise<Health> {
  const answer = await fetch(`${node.url}/health`, { signal: AbortSignal.timeout(1_000) });
  return { http: answer.status, ...((await answer.json()) as object) } as Health;
}

const isReady = async (node: ClusterNode) => (await health(node, '/health/ready')).http === 200;

async function watch(node: ClusterNode): Promise<{ query: LiveQuery; states: SubscriptionState[] }> {
  const plank = createPlank({ url: `${node.url}/ws` });
  planks.push(plank);
  const query = plank.table('watched').live();
  const states: SubscriptionState[] = [];
  query.subscribe(() => states.at(-1) !== query.state && states.push(query.state));
  await query.ready;
  return { query, states };
}

let lastId = 0;
async function arrives(query: LiveQuery, ms: number): Promise<void> {
  const id = ++lastId;
  await admin(databaseUrl, `insert into watched (id, name) values (${id}, 'x')`);
  await until('a change arrives', () => query.rows.has(id), ms);
}

const all = (...names: (keyof typeof proxies)[]) => ({
  cut: () => {
    for (const name of names) proxies[name].blackhole();
  },
  heal: () => {
    for (const name of names) proxies[name].pass();
  },
});
const listener = (cut: NodeJS.Signals, heal: () => Promise<void> | void) => ({
  cut: () => cluster.listeners[0]!.signal(cut),
  heal,
});

describe('changes that may not arrive', () => {
  const noListener = /^none leads since \d+ s$/;
  test.each([
    {
      cause: 'the listener was killed',
      ...listener('SIGKILL', async () => {
        await until('it has ended', () => !cluster.listeners[0]!.running, 5_000);
        await cluster.listeners[0]!.start();
      }),
      listener: noListener,
      reason: /^no listener leads \(\d+ s\)$/,
      ready: true,
    },
    {
      cause: 'the listener hangs',
      ...listener('SIGSTOP', () => cluster.listeners[0]!.signal('SIGCONT')),
      listener: noListener,
      reason: /^no listener leads \(\d+ s\)$/,
      ready: true,
    },
    {
      cause: 'Postgres hangs',
      ...all('listenerPostgres', 'firstPostgres', 'postgres'),
      listener: /./,
      reason: /^neither Postgres nor a listener confirms that changes arrive$/,
      ready: true,
    },
    {
      cause: 'gateways are cut off from Postgres and from Redis',
      ...all('firstPostgres', 'postgres', 'redis'),
      listener: /^unknown/,
      reason: /^neither the stream nor the log in Postgres can be read$/,
      ready: false,
    },
  ])(
    'health and the SDK report that changes may not arrive when $cause',
    async ({ cut, heal, listener, reason, ready }) => {
      const { query, states } = await watch(first);
      await until('all is well', async () => (await healthOf(first)).status === 'ok', freshMs);
      const cutAt = Date.now();
      cut();
      const ms = await until('the SDK says that it is stale', () => query.state === 'stale', staleMs);
      console.log(`stale after ${ms.toFixed(0)} ms`);
      expect(Math.abs(query.staleSince!.getTime() - cutAt)).toBeLessThan(7_000);
      const now = await healthOf(first);
      expect(now).toMatchObject({ http: 503, status: 'degraded' });
      expect(now.reason).toMatch(reason);
      expect(now.listener).toMatch(listener);
      expect(now.stale_ms).toBeGreaterThan(0);
      expect(await isReady(first)).toBe(ready);
      expect((await health(first, '/health/live')).http).toBe(200);
      await heal();
      await until('the SDK is live again', () => query.state === 'live', freshMs);
      await until('all is well again', async () => (await healthOf(first)).status === 'ok', freshMs);
      expect(query.staleSince).toBe(null);
      expect(await isReady(first)).toBe(true);
      await arrives(query, freshMs);
      expect(states.filter((state) => state !== 'offline' && state !== 'catching-up')).toEqual([
        'live',
        'stale',
        'live',
      ]);
    },
  );
});

describe('changes that arrive all the same', () => {
  test.each([
    { cause: 'only gateways do not reach Postgres', ...all('firstPostgres', 'postgres'), status: 'degraded' },
    { cause: 'only Redis hangs, and the log is read', ...all('listenerRedis', 'redis'), status: 'ok' },
  ])('health and the SDK report nothing when $cause', async ({ cut, heal, status }) => {
    const { query, states } = await watch(first);
    await until('the gateway tails Redis', async () => (await health(first)).changes === 'tailing', freshMs);
    await arrives(query, freshMs);
    const before = states.length;
    cut();
    // a server that answered a moment ago does not count as unreachable yet
    await until(`/health is ${status}`, async () => (await healthOf(first)).status === status, 5_000);
    const end = performance.now() + 9_000;
    while (performance.now() < end) {
      await arrives(query, freshMs);
      await delay(2_500);
      expect(await healthOf(first)).toMatchObject({ stale_ms: 0, status });
      expect(await isReady(first)).toBe(true);
    }
    expect(states.slice(before)).toEqual([]);
    heal();
    await until('all is well again', async () => (await healthOf(first)).status === 'ok', freshMs);
  });
});

test('a replica that alone gets no changes is not ready, as others can serve its clients', async () => {
  const isWell = ({ status, changes }: Health) => status === 'ok' && changes === 'tailing';
  await until('all is well, and Redis is read', async () => isWell(await healthOf(first)), freshMs);
  const { cut, heal } = all('listenerRedis', 'firstPostgres');
  cut();
  await until('the first is not ready', async () => !(await isReady(first)), staleMs);
  expect((await healthOf(first)).reason).toMatch(/^others get changes, this replica does not: /);
  expect(await healthOf(second)).toMatchObject({ http: 200, status: 'ok', stale_ms: 0 });
  expect(await isReady(second)).toBe(true);
  heal();
  await until('the first is ready again', () => isReady(first), freshMs);
});
