// Four gateways behind a real nginx: 200 clients are spread evenly, and each gets each change once and in order.

import { afterAll, beforeAll, beforeEach, expect, test } from 'vitest';
import { Cluster } from '#deploy/local/cluster.ts';
import { createDatabase, redisUrl } from '../support/servers/servers.ts';
import { connectAll, quantile, type TestClient } from '../support/stage/client.ts';
import { health, metric, tellOnFailure } from '../support/stage/nodes.ts';
import { Ledger } from '../support/truth/ledger.ts';
import { until } from '../support/wait.ts';

const stack = new AsyncDisposableStack();
let cluster: Cluster;
let databaseUrl: string;
let clients: TestClient[];

beforeAll(async () => {
  const database = await createDatabase();
  stack.defer(() => database.drop());
  databaseUrl = database.url;
  const env = { PLANK_LOG_NAME: database.name };
  cluster = await Cluster.start({ gateways: 4, databaseUrl, redisUrl: await redisUrl(), env });
  stack.defer(() => cluster.stop());
  stack.defer(() => clients?.forEach((client) => client.stop()));
  clients = await connectAll(200, { url: cluster.webSocketUrl });
});

beforeEach(() => tellOnFailure(() => [...cluster.listeners, ...cluster.gateways]));

afterAll(() => stack.disposeAsync());

test('nginx spreads 200 clients over four gateways, each within 20 % of a fair share', async () => {
  const counts = await Promise.all(cluster.gateways.map((node) => metric(node, 'plank_connections', 'websocket')));
  console.log(`connections of the replicas: ${counts.join(', ')}`);
  expect(counts.reduce((sum, count) => sum + count)).toBe(200);
  for (const count of counts) expect(count).toSatisfy((n: number) => n >= 40 && n <= 60);

  const answers = await Promise.all(cluster.gateways.map((node) => health(node)));
  expect(answers.map(({ connections }) => connections)).toEqual(counts);
  expect(answers.map((answer) => answer.http)).toEqual([200, 200, 200, 200]);
});

test('each client gets each change exactly once and in order', async () => {
  const ledger = new Ledger({ databaseUrl, restUrl: cluster.url, sqlWriters: 2, restWriters: 2 }).start();
  await ledger.more(500);
  await ledger.finish(clients);
  for (const client of clients) {
    expect(ledger.verify(client)).toEqual([]);
    expect(client.count).toBe(ledger.changes);
  }
  expect([...ledger.statuses.keys()].every((status) => status < 300)).toBe(true);
  const latencies = clients.flatMap((client) => client.latencies);
  console.log(
    `${ledger.changes} changes to 200 clients: p50 ${quantile(latencies, 0.5).toFixed(1)} ms, p99 ${quantile(latencies, 0.99).toFixed(1)} ms`,
  );
});

test('gateways drop clients that leave', async () => {
  for (const client of clients) client.stop();
  const left = async () => {
    const answers = await Promise.all(cluster.gateways.map((node) => health(node)));
    return answers.every(({ connections }) => connections === 0);
  };
  await until('no gateway has a connection left', left, 5_000);
});
