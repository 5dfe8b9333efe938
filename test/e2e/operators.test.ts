// What operators rely on, against real processes and a real Prometheus: the dashboard's charts have
// data, the rules are evaluated, and the probes of the Kubernetes manifests are answered.

import { join } from 'node:path';
import { afterAll, beforeAll, beforeEach, expect, test } from 'vitest';
import { Cluster } from '#deploy/local/cluster.ts';
import { type LocalPrometheus, startPrometheus } from '#deploy/local/prometheus.ts';
import { expressions, readDashboard } from '../support/deploy/dashboard.ts';
import { readResources, readYaml } from '../support/deploy/manifests.ts';
import { createDatabase, redisUrl } from '../support/servers/servers.ts';
import { connectAll, type TestClient } from '../support/stage/client.ts';
import { leader, tellOnFailure } from '../support/stage/nodes.ts';
import { until } from '../support/wait.ts';

interface Sample {
  metric: Record<string, string>;
  value: [at: number, value: string];
}
interface Alert {
  labels: Record<string, string>;
  state: 'pending' | 'firing';
}

const root = join(import.meta.dirname, '../..');
const stack = new AsyncDisposableStack();
let cluster: Cluster;
let prometheus: LocalPrometheus;
let clients: TestClient[] = [];
const nodes = () => [...cluster.listeners, ...cluster.gateways];

beforeAll(async () => {
  const database = await createDatabase();
  stack.defer(() => database.drop());
  const options = { databaseUrl: database.url, redisUrl: await redisUrl(), env: { PLANK_LOG_NAME: database.name } };
  cluster = await Cluster.start({ gateways: 2, listeners: 2, balanced: false, ...options });
  stack.defer(() => cluster.stop());
  const addresses = (of: typeof cluster.gateways) => of.map(({ url }) => new URL(url).host);
  prometheus = await startPrometheus({
    targets: { gateway: addresses(cluster.gateways), listener: addresses(cluster.listeners) },
    ruleFiles: [join(root, 'deploy/prometheus-rules.yml')],
  });
  stack.defer(() => prometheus.stop());
  const [first, second] = cluster.gateways.map(({ url }) => ({ url: `${url.replace('http', 'ws')}/ws` }));
  clients = [...(await connectAll(30, first!)), ...(await connectAll(10, second!))];
  stack.defer(() => {
    for (const client of clients) client.stop();
  });
});

beforeEach(() => tellOnFailure(nodes));

afterAll(() => stack.disposeAsync());

test('Prometheus counts at each replica the clients that are connected there', async () => {
  const counts = async () =>
    Object.fromEntries(
      (await query('sum by (node) (plank_connections)')).map(({ metric, value }) => [metric.node, Number(value[1])]),
    );
  await until('Prometheus has counted all', async () => sum(Object.values(await counts())) === clients.length, 20_000);
  expect(await counts()).toEqual({ 'gateway-1': 30, 'gateway-2': 10 });
});

test('the dashboard has data for every chart', async () => {
  // nothing of the kind has happened here: no client left, came back or had to start over, and no
  // alert is on its way
  const mayBeSilent = ['Alerts', 'Closed, by code', 'Resumes, by result', 'Resyncs, by reason', 'A new lead'];
  let silent: string[] = [];
  const looked = async () => {
    // rates need two scrapes with traffic between them
    await write();
    silent = [];
    for (const { title, expr } of expressions(readDashboard())) {
      const asked = expr.replaceAll('$node', '.*').replaceAll('$__rate_interval', '10s');
      if ((await query(asked)).length === 0 && !mayBeSilent.includes(title)) silent.push(title);
    }
    return silent.length === 0;
  };
  await until('all charts have data', looked, 20_000).catch(() => {});
  expect(silent).toEqual([]);
});

test('Prometheus evaluates every rule, and no alert fires while all is well', async () => {
  const written: object[] = readYaml(join(root, 'deploy/prometheus-rules.yml')).groups.flatMap(
    ({ rules }: { rules: object[] }) => rules,
  );
  const health = async () => {
    const { groups } = await ask<{ groups: { rules: { health: string }[] }[] }>('rules');
    return groups.flatMap(({ rules }) => rules.map((rule) => rule.health));
  };
  await until('all have been evaluated', async () => !(await health()).includes('unknown'), 10_000);
  expect(await health()).toEqual(written.map(() => 'ok'));
  expect((await alerts()).filter(({ state }) => state === 'firing')).toEqual([]);
});

test('the processes answer the probes of the Kubernetes manifests', async () => {
  const deployments = readResources(join(root, 'deploy/kubernetes/base')).filter(({ kind }) => kind === 'Deployment');
  expect(deployments).toHaveLength(2);
  for (const { spec } of deployments) {
    const [container] = spec.template.spec.containers;
    const node = nodes().find(({ name }) => name.startsWith(container.name))!;
    for (const probe of ['startupProbe', 'readinessProbe', 'livenessProbe']) {
      const { path } = container[probe].httpGet;
      expect((await fetch(node.url + path)).status, `${container.name}: ${path}`).toBe(200);
    }
  }
});

test('alerts are on their way when no listener leads', async () => {
  const leading = await leader(cluster.listeners);
  // the standby first, so that nobody takes over
  for (const node of cluster.listeners) if (node !== leading) await node.kill();
  await leading.kill();
  const pending = async () => (await alerts()).map(({ labels }) => labels.alertname);
  await until(
    'the alerts are on their way',
    async () => {
      const names = await pending();
      return names.includes('PlankNoLeader') && names.includes('PlankReplicaDown');
    },
    15_000,
  );
});

/** Commits a few changes. */
async function write(): Promise<void> {
  const body = JSON.stringify({ name: 'seen by operators', value: 1 });
  const headers = { 'Content-Type': 'application/json' };
  const answers = await Promise.all(
    cluster.gateways.map(({ url }) => fetch(`${url}/api/items`, { method: 'POST', headers, body })),
  );
  for (const answer of answers) expect(answer.status).toBe(201);
}

/** Throws if Prometheus cannot evaluate the expression. */
async function query(expression: string): Promise<Sample[]> {
  return (await ask<{ result: Sample[] }>(`query?query=${encodeURIComponent(expression)}`)).result;
}

async function alerts(): Promise<Alert[]> {
  return (await ask<{ alerts: Alert[] }>('alerts')).alerts;
}

async function ask<T>(path: string): Promise<T> {
  const answer = (await (await fetch(`${prometheus.url}/api/v1/${path}`)).json()) as {
    status: string;
    error?: string;
    data: T;
  };
  if (answer.status !== 'success') throw new Error(`${path}: ${answer.error}`);
  return answer.data;
}

function sum(values: number[]): number {
  return values.reduce((total, value) => total + value, 0);
}
