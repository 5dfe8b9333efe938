// A gateway hangs behind a real nginx (SIGSTOP: its kernel still accepts connections): the others serve every client.

import { afterAll, beforeAll, beforeEach, expect, test } from 'vitest';
import { createPlank, type Link } from '#client/plank-client.ts';
import { Cluster, type ClusterNode } from '#deploy/local/cluster.ts';
import { admin } from '../support/servers/admin.ts';
import { createDatabase, redisUrl } from '../support/servers/servers.ts';
import { connectAll, type TestClient } from '../support/stage/client.ts';
import { overEvents } from '../support/stage/frames.ts';
import { health, tellOnFailure } from '../support/stage/nodes.ts';
import { until } from '../support/wait.ts';

const stack = new AsyncDisposableStack();
let cluster: Cluster;
let databaseUrl: string;
let hung: ClusterNode;

beforeAll(async () => {
  const database = await createDatabase();
  stack.defer(() => database.drop());
  databaseUrl = database.url;
  // an SDK gives a silent gateway up after 2.5 times this
  const env = { PLANK_LOG_NAME: database.name, PING_INTERVAL_MS: '2000' };
  cluster = await Cluster.start({ gateways: 3, databaseUrl, redisUrl: await redisUrl(), env });
  stack.defer(() => cluster.stop());
  hung = cluster.gateways[1]!;
});

beforeEach(() => tellOnFailure(() => [...cluster.listeners, ...cluster.gateways]));
afterAll(() => stack.disposeAsync());

const within = async <T>(ms: number, work: Promise<T>): Promise<T> => {
  const began = performance.now();
  const done = await work;
  expect(performance.now() - began).toBeLessThan(ms);
  return done;
};

async function call(method: string, path: string, body?: unknown): Promise<number> {
  const answer = await fetch(`${cluster.url}${path}`, {
    method,
    headers: { 'Content-Type': 'application/json', connection: 'close' },
    ...(body === undefined ? {} : { body: JSON.stringify(body) }),
  });
  await answer.arrayBuffer();
  return answer.status;
}

test('the other gateways serve every client while one hangs, and no request is repeated', async () => {
  const before = await connectAll(30, { url: cluster.webSocketUrl });
  await admin(databaseUrl, "insert into items (name) values ('first')");
  await until('every client has a position', () => before.every(({ pos }) => pos !== undefined), 5_000);
  const since = before[0]!.pos!;
  const links: Link[] = [];
  const planks = Array.from({ length: 9 }, (_, i) => {
    const plank = createPlank({ url: cluster.webSocketUrl });
    stack.defer(() => plank.close());
    plank.onState((link) => (links[i] = link));
    return plank;
  });
  await Promise.all(planks.map((plank) => plank.table('items').live().ready));
  const own = await health(hung);
  expect(own.connections).toBeGreaterThan(5);

  hung.signal('SIGSTOP');
  const numbers = Array.from({ length: 60 }, (_, i) => i);
  let fresh: TestClient[] = [];
  try {
    const all = Promise.all([
      connectAll(60, { url: cluster.webSocketUrl }),
      connectAll(20, { url: cluster.webSocketUrl, since }),
      Promise.all(numbers.map((i) => call('POST', '/api/items', { name: `once ${i}` }))),
      Promise.all(numbers.map(() => call('GET', '/api/items?limit=1'))),
      Promise.all(numbers.slice(0, 10).map(() => overEvents(cluster.url, { table: 'items' }))),
    ]);
    const [plain, resumed, posted, read, streams] = await within(5_000, all);
    for (const stream of streams) stream.close();
    fresh = [...plain, ...resumed];
    expect(posted).toEqual(numbers.map(() => 201));
    expect(read).toEqual(numbers.map(() => 200));
    // later as well: nginx tries the hung gateway again after 5 s
    const end = performance.now() + 6_000;
    while (performance.now() < end) {
      const more = await within(3_000, connectAll(5, { url: cluster.webSocketUrl }));
      expect(await within(3_000, call('PATCH', '/api/items/1', { value: performance.now() }))).toBe(200);
      for (const client of more) client.stop();
    }
    const elsewhere = (link: Link) => link.status === 'open' && !link.connection?.startsWith(`${hung.name}/`);
    await until('every SDK is at another gateway', () => links.every(elsewhere), 10_000);
    const counts = fresh.map(({ count }) => count);
    await admin(databaseUrl, "insert into items (name) values ('last')");
    await until('every new client gets the change', () => fresh.every(({ count }, i) => count > counts[i]!), 5_000);
  } finally {
    hung.signal('SIGCONT');
  }
  await until('the gateway serves again', async () => (await health(hung)).http === 200, 5_000);
  const counted = await admin(
    databaseUrl,
    "select count(*)::int as n, count(distinct name)::int as names from items where name like 'once%'",
  );
  expect(counted).toEqual([{ n: 60, names: 60 }]);
  for (const client of [...before, ...fresh]) client.stop();
  await until(
    'nginx chooses the gateway again',
    async () => {
      const [client] = await connectAll(1, { url: cluster.webSocketUrl });
      const { connections } = await health(hung);
      client!.stop();
      return connections! > 0;
    },
    10_000,
  );
});
