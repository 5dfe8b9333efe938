// How the tests' own client measures changes: tests would blame its errors on gateways.

import { once } from 'node:events';
import type { AddressInfo } from 'node:net';
import { afterEach, beforeEach, expect, test } from 'vitest';
import { WebSocketServer } from 'ws';
import { TestClient } from '../support/stage/client.ts';
import { until } from '../support/wait.ts';

let server: WebSocketServer;
let client: TestClient;

beforeEach(async () => {
  server = new WebSocketServer({ host: '127.0.0.1', port: 0 });
  await once(server, 'listening');
  client = await TestClient.connect({ url: `ws://127.0.0.1:${(server.address() as AddressInfo).port}/ws` });
});

afterEach(async () => {
  client.stop();
  await new Promise((resolve) => server.close(resolve));
});

let seq = 0;

function send(action: string, value: number, agoMs: number): void {
  const data = { id: 7, value, updated_at: new Date(Date.now() - agoMs).toISOString() };
  for (const socket of server.clients)
    socket.send(JSON.stringify({ table: 'items', action, id: 7, data, pos: `e1.${++seq}` }));
}

test("the tests' client takes the time from INSERT and UPDATE, and none from a DELETE's old row", async () => {
  send('INSERT', 1, 60_000);
  send('UPDATE', 2, 30_000);
  send('DELETE', 2, 30_000);
  await until('the three changes', () => client.count === 3, 2_000);
  expect(client.problems).toEqual([]);
  expect(client.latencies.map((ms) => Math.round(ms / 10_000))).toEqual([6, 3]);
});
