// Gateways behind nginx are killed, or stopped one after the other, under load. Their clients come back to another gateway
// with their position and miss nothing. A stop closes with 1012, and REST answers all the while.

import { afterAll, beforeAll, beforeEach, expect, test } from 'vitest';
import { Cluster } from '#deploy/local/cluster.ts';
import { createDatabase, redisUrl } from '../support/servers/servers.ts';
import { connectAll, quantile, seqOf, type TestClient } from '../support/stage/client.ts';
import { health, tellOnFailure } from '../support/stage/nodes.ts';
import { Ledger } from '../support/truth/ledger.ts';
import { until } from '../support/wait.ts';

const stack = new AsyncDisposableStack();
let cluster: Cluster;
let databaseUrl: string;
const clients: TestClient[] = [];

beforeAll(async () => {
  const database = await createDatabase();
  stack.defer(() => database.drop());
  databaseUrl = database.url;
  const env = { PLANK_LOG_NAME: database.name };
  cluster = await Cluster.start({ gateways: 3, databaseUrl, redisUrl: await redisUrl(), env });
  stack.defer(() => cluster.stop());
});

beforeEach(() => tellOnFailure(() => [...cluster.listeners, ...cluster.gateways]));

afterAll(async () => {
  for (const client of clients) client.stop();
  await stack.disposeAsync();
});

async function connect(count: number): Promise<TestClient[]> {
  for (const client of clients.splice(0)) client.stop();
  clients.push(...(await connectAll(count, { url: cluster.webSocketUrl })));
  return clients;
}

/** Each client that came back sent its position, and got the next change after it. */
function expectResumed(client: TestClient): void {
  expect(client.resumed).toHaveLength(client.reconnects);
  for (const { since, first } of client.resumed)
    if (first !== undefined) expect(seqOf(first)).toBeGreaterThan(seqOf(since));
}

test('clients of a killed gateway resume at the others', async () => {
  await connect(60);
  const ledger = new Ledger({ databaseUrl, restUrl: cluster.url }).start();
  await ledger.more(60);
  const [victim] = cluster.gateways;
  const { connections } = await health(victim!);
  expect(connections).toBeGreaterThan(10);
  await victim!.kill();
  const killedAt = performance.now();
  const hit = () => clients.filter(({ closeCodes }) => closeCodes.length > 0);
  await until('its clients are back', () => hit().length === connections && hit().every((c) => c.isOpen), 5_000);
  console.log(`${connections} clients were back ${(performance.now() - killedAt).toFixed(0)} ms after the kill`);
  await ledger.more(60);
  await ledger.finish(clients);
  for (const client of clients) {
    expect(ledger.verify(client)).toEqual([]);
    expectResumed(client);
  }
  expect(new Set(hit().flatMap(({ closeCodes }) => closeCodes))).toEqual(new Set([1006]));
  const p99 = quantile(
    hit().flatMap(({ latencies }) => latencies),
    0.99,
  );
  console.log(`p99 of those clients: ${p99.toFixed(0)} ms`);
  expect(p99).toBeLessThan(3_000);
  await victim!.start();
});

test('a SIGTERM to all gateways in turn closes with 1012 only, and REST gives no 5xx', async () => {
  await connect(60);
  const ledger = new Ledger({
    databaseUrl,
    restUrl: cluster.url,
    sqlWriters: 1,
    restWriters: 4,
    perSecond: 80,
  }).start();
  await ledger.more(60);
  for (const node of cluster.gateways) {
    const before = performance.now();
    await node.stop();
    console.log(`${node.name} stopped in ${(performance.now() - before).toFixed(0)} ms`);
    await ledger.more(40);
    await node.start();
    await ledger.more(40);
  }
  await ledger.finish(clients);
  for (const client of clients) {
    expect(ledger.verify(client)).toEqual([]);
    expectResumed(client);
  }
  const codes = clients.flatMap(({ closeCodes }) => closeCodes);
  console.log(`${codes.length} closes; REST statuses ${JSON.stringify([...ledger.statuses])}`);
  expect(codes.length).toBeGreaterThanOrEqual(60);
  expect(new Set(codes)).toEqual(new Set([1012]));
  expect([...ledger.statuses.keys()].filter((status) => status === 0 || status >= 500)).toEqual([]);
});

test('another gateway answers operators who come through nginx while one hangs', async () => {
  const [hanging] = cluster.gateways;
  hanging!.signal('SIGSTOP');
  try {
    const status = async () => {
      const signal = AbortSignal.timeout(9_000);
      return (await fetch(`${cluster.nginx!.operationsUrl}/ops/status`, { signal })).status;
    };
    const statuses = await Promise.all(Array.from({ length: 12 }, status));
    expect(new Set(statuses)).toEqual(new Set([200]));
  } finally {
    hanging!.signal('SIGCONT');
  }
});
