// Replicas come, go and are drained under load, behind a real nginx: no client misses a change, and connections end evenly
// spread.

import { afterAll, beforeAll, beforeEach, expect, test } from 'vitest';
import { createPlank, type Link, type LiveQuery, type Plank } from '#client/plank-client.ts';
import { Cluster, type ClusterNode } from '#deploy/local/cluster.ts';
import { admin } from '../support/servers/admin.ts';
import { createDatabase, redisUrl } from '../support/servers/servers.ts';
import { connectAll, type TestClient } from '../support/stage/client.ts';
import { overEvents } from '../support/stage/frames.ts';
import { health, metric, tellOnFailure } from '../support/stage/nodes.ts';
import { Ledger } from '../support/truth/ledger.ts';
import { until } from '../support/wait.ts';

const plainClients = 160;
const sdkClients = 40;
const everyone = plainClients + sdkClients;

const stack = new AsyncDisposableStack();
let cluster: Cluster;
let databaseUrl: string;
const clients: TestClient[] = [];
const planks: Plank[] = [];
const lives: LiveQuery[] = [];
/** the connection's state of each SDK */
const links: Link[] = [];

beforeAll(async () => {
  const database = await createDatabase();
  stack.defer(() => database.drop());
  databaseUrl = database.url;
  const env = { PLANK_LOG_NAME: database.name, SHED_PER_SECOND: '40' };
  cluster = await Cluster.start({ gateways: 2, databaseUrl, redisUrl: await redisUrl(), env, limitsAll: true });
  stack.defer(() => cluster.stop());
  clients.push(...(await connectAll(plainClients, { url: cluster.webSocketUrl })));
  for (let i = 0; i < sdkClients; i++) {
    const plank = createPlank({ url: cluster.webSocketUrl });
    planks.push(plank);
    plank.onState((link) => (links[i] = link));
    lives.push(plank.table('items').live());
  }
  await Promise.all(lives.map(({ ready }) => ready));
});

beforeEach(() => tellOnFailure(() => [...cluster.listeners, ...cluster.gateways]));

afterAll(async () => {
  for (const client of clients) client.stop();
  for (const plank of planks) plank.close();
  await stack.disposeAsync();
});

const connectionsOf = async (node: ClusterNode) => (await health(node)).connections ?? 0;
const counts = () => Promise.all(cluster.gateways.map(connectionsOf));

/**
 * Waits until all are connected and no replica is further than a tenth, or ten, from the fair share. Resolves with how long
 * that took, in ms.
 */
function evenlySpread(deadlineMs: number): Promise<number> {
  let last: number[] = [];
  const isEven = async () => {
    last = await counts();
    const share = everyone / last.length;
    const bound = Math.max(share / 10, 10);
    const sum = last.reduce((total, count) => total + count, 0);
    return sum === everyone && last.every((count) => Math.abs(count - share) <= bound);
  };
  return until('all are spread evenly', isEven, deadlineMs).catch((cause: unknown) => {
    const away = clients
      .filter(({ isOpen }) => !isOpen)
      .map(({ closeCodes, refusals }) => [...closeCodes, ...refusals]);
    throw new Error(
      `${last.join(', ')} are not even; away: ${JSON.stringify([...away, ...links.filter((one) => one.status !== 'open')])}`,
      { cause },
    );
  });
}

/** Each plain client has got each change once and in order, and each live query equals the table. */
async function expectComplete(ledger: Ledger): Promise<void> {
  await ledger.finish(clients);
  for (const client of clients) expect(ledger.verify(client)).toEqual([]);
  const rows = await admin(databaseUrl, 'select id, value from items order by id');
  const expected = rows.map(({ id, value }) => `${id}: ${value}`);
  const pictures = () =>
    lives.map(({ rows: now }) =>
      [...now.values()]
        .map((row) => row as { id: number; value: number })
        .sort((a, b) => a.id - b.id)
        .map(({ id, value }) => `${id}: ${value}`),
    );
  await until('each live query has everything', () => pictures().every((one) => one.length === expected.length), 5_000);
  for (const picture of pictures()) expect(picture).toEqual(expected);
}

async function operate(path: string): Promise<{ status: number; body: Record<string, unknown> }> {
  const answer = await fetch(`${cluster.nginx!.operationsUrl}/ops/nodes/${path}`, { method: 'POST' });
  return { status: answer.status, body: (await answer.json()) as Record<string, unknown> };
}

test('clients of 2, then 4, then 2 replicas miss nothing, get nothing twice, and are spread evenly', async () => {
  const ledger = new Ledger({ databaseUrl, restUrl: cluster.url, sqlWriters: 2, restWriters: 2 }).start();
  // a client without a position is not asked to leave
  await ledger.more(20);
  await until('every client has a change', () => clients.every(({ count }) => count > 0), 5_000);
  await evenlySpread(5_000);

  await Promise.all([cluster.addGateway(), cluster.addGateway()]);
  const afterUp = await evenlySpread(30_000);
  const shed = await Promise.all(cluster.gateways.map((node) => metric(node, 'plank_connections_shed_total')));
  console.log(
    `even ${afterUp.toFixed(0)} ms after the scale-up: ${(await counts()).join(', ')}; given: ${shed.join(', ')}`,
  );

  const before = performance.now();
  await Promise.all(cluster.gateways.slice(0, 2).map((node) => cluster.removeGateway(node)));
  console.log(`two left in ${(performance.now() - before).toFixed(0)} ms`);
  const afterDown = await evenlySpread(20_000);
  console.log(`even ${afterDown.toFixed(0)} ms after the scale-down: ${(await counts()).join(', ')}`);

  await ledger.more(40);
  await expectComplete(ledger);
  // status 0 is allowed: a reload of nginx may cut a connection as a request is sent on it
  expect([...ledger.statuses.keys()].filter((status) => status >= 500)).toEqual([]);
  const codes = clients.flatMap(({ closeCodes }) => closeCodes);
  expect(codes.length).toBeGreaterThan(plainClients / 2);
  expect(new Set(codes)).toEqual(new Set([1012]));
  expect(clients.flatMap(({ refusals }) => refusals)).toEqual([]);
});

test('a drained replica has no clients and gets none, and gets its share when it is undrained', async () => {
  const [drained, other] = cluster.gateways as [ClusterNode, ClusterNode];
  // rows of the test before are verified already
  for (const { rows } of clients) rows.clear();
  const ledger = new Ledger({ databaseUrl, restUrl: cluster.url, sqlWriters: 1, restWriters: 2 }).start();
  const { status, body } = await operate(`${drained.name}/drain`);
  expect([status, body.node, body.state, body.warning]).toEqual([202, drained.name, 'draining', undefined]);
  expect(await health(drained, '/health/ready')).toMatchObject({ http: 503, ready: false });
  await until('its clients are at the other replica', async () => (await connectionsOf(other)) === everyone, 15_000);
  expect(await connectionsOf(drained)).toBe(0);

  // nginx would choose it first, as it has the fewest connections
  const opened = await metric(drained, 'plank_connections_opened_total');
  const fresh = await connectAll(20, { url: cluster.webSocketUrl });
  const streams = await Promise.all(Array.from({ length: 5 }, () => overEvents(cluster.url, { table: 'items' })));
  expect(fresh.flatMap(({ refusals }) => refusals)).toEqual([]);
  expect(await metric(drained, 'plank_connections_opened_total')).toBe(opened);
  for (const one of [...fresh.map((client) => () => client.stop()), ...streams.map((stream) => () => stream.close())])
    one();
  await ledger.more(20);

  expect((await operate(`${drained.name}/undrain`)).body.state).toBe('serving');
  expect(await health(drained, '/health/ready')).toMatchObject({ http: 200, ready: true });
  await evenlySpread(30_000);
  await expectComplete(ledger);
  expect([...ledger.statuses.keys()].filter((code) => code === 0 || code >= 500)).toEqual([]);
});

test('a node that cannot be drained is refused with the reason', async () => {
  expect(await operate('nobody/drain')).toMatchObject({ status: 404, body: { code: 'NOT_FOUND' } });
  expect(await operate('listener-1/drain')).toMatchObject({ status: 400, body: { code: 'INVALID' } });
  const reading = await fetch(`${cluster.nginx!.operationsUrl}/ops/nodes/gateway-3/drain`);
  expect([reading.status, reading.headers.get('allow')]).toEqual([405, 'POST']);
});

test('an address that dials too often is refused with 429, and an SDK behind it comes back', async () => {
  const dial = async () => (await fetch(`${cluster.url}/ws`)).status;
  let refused = 0;
  await until(
    'a dial is refused',
    async () => {
      const statuses = await Promise.all(Array.from({ length: 200 }, dial));
      refused += statuses.filter((status) => status === 429).length;
      return refused > 0;
    },
    10_000,
  );
  expect((await fetch(`${cluster.url}/health/live`)).status).toBe(200);
  const plank = createPlank({ url: cluster.webSocketUrl });
  stack.defer(() => plank.close());
  await plank.table('items').live().ready;
  // connected clients stay
  expect((await counts()).reduce((sum, count) => sum + count)).toBe(everyone + 1);
});
