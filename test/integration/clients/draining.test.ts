// What clients of each transport receive when an operator drains a gateway, and what a drained gateway still serves.

import { afterAll, beforeAll, expect, test } from 'vitest';
import { createDatabase } from '../../support/servers/servers.ts';
import { TestClient } from '../../support/stage/client.ts';
import { type Embedded, startEmbedded } from '../../support/stage/embedded.ts';
import { overWebSocket } from '../../support/stage/frames.ts';
import { until } from '../../support/wait.ts';

const stack = new AsyncDisposableStack();
let embedded: Embedded;

beforeAll(async () => {
  const database = await createDatabase();
  stack.defer(() => database.drop());
  embedded = await startEmbedded(database.url);
  stack.defer(() => embedded.stop());
});
afterAll(() => stack.disposeAsync());

const post = async (name: string) => {
  const answer = await fetch(`${embedded.opsUrl}/ops/nodes/test/${name}`, { method: 'POST' });
  return { status: answer.status, body: (await answer.json()) as object };
};
const at = async (path: string) => {
  const answer = await fetch(embedded.url + path);
  return { status: answer.status, body: (await answer.json()) as Record<string, unknown> };
};

/** The value of `plank_ready`. */
async function isReady(): Promise<string | undefined> {
  const metrics = await (await fetch(`${embedded.url}/metrics`)).text();
  return /^plank_ready\{.*\} (\d)$/m.exec(metrics)?.[1];
}

/** The whole text of an event stream that the gateway ends. */
async function stream(): Promise<{ text: Promise<string> }> {
  const answer = await fetch(`${embedded.url}/api/items/changes`);
  expect(answer.status).toBe(200);
  return { text: answer.text() };
}

test('a drain is announced in each transport, and ends with no client left', async () => {
  const webSocket = `${embedded.url.replace('http', 'ws')}/ws`;
  const plain = await TestClient.connect({ url: webSocket, reconnects: false });
  const session = await overWebSocket(embedded.url, { table: 'items' });
  await session.expect('live');
  const events = await stream();
  const warning = expect.stringMatching(/^No other replica accepts clients/) as string;
  const drained = { node: 'test', state: 'draining', connections: 3, warning };
  expect(await post('drain')).toEqual({ status: 202, body: drained });

  const { after_ms } = await session.expect('drain');
  // three clients do not take the whole window
  expect(after_ms).toBeGreaterThan(0);
  expect(after_ms).toBeLessThanOrEqual(30);
  await until('the session is closed', () => session.ended !== undefined, 5_000);
  expect(session.ended).toBe('closed with 1012 this replica stops, come back');
  expect(await plain.closed()).toBe(1012);
  const waits = [...(await events.text).matchAll(/^retry: (\d+)$/gm)].map(([, ms]) => Number(ms));
  expect(waits).toHaveLength(2);
  expect(waits[0]).toSatisfy((ms: number) => ms >= 2_000 && ms <= 4_000);
  expect(waits[1]).toSatisfy((ms: number) => ms <= 500);
  await until('no client is left', async () => (await at('/health')).body.connections === 0, 5_000);

  expect(await at('/health/ready')).toMatchObject({ status: 503, body: { reason: 'drained by an operator' } });
  expect(await isReady()).toBe('0');
  await expect(TestClient.connect({ url: webSocket, reconnects: false })).rejects.toThrow('503');
  expect(await at('/api/items/changes')).toMatchObject({ status: 503, body: { code: 'LEAVING' } });
  expect((await at('/api/items')).status).toBe(200);
  expect((await post('drain')).body).toMatchObject({ state: 'drained' });

  expect((await post('undrain')).body).toEqual({ node: 'test', state: 'serving', connections: 0 });
  expect((await at('/health/ready')).status).toBe(200);
  expect(await isReady()).toBe('1');
  const back = await TestClient.connect({ url: webSocket, reconnects: false });
  back.stop();
});
