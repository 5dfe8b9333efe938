// The order in which messages of clients are handled: at once while their connection has credit, then in turn. `busy` stands for
// the work of a message; connections are real. A flood (test/integration/clients/floods.test.ts) cannot show the order: the points
// of a connection end it before its messages cost much more than its credit.

import { once } from 'node:events';
import type { AddressInfo, Socket } from 'node:net';
import { afterEach, beforeEach, expect, test } from 'vitest';
import { WebSocket, WebSocketServer } from 'ws';
import { Connection } from '#gateway/clients/connection.ts';
import { Inbox } from '#gateway/clients/inbox.ts';
import { until } from '../support/wait.ts';

const messageMs = 5;
let server: WebSocketServer;
let clients: WebSocket[];
let flooding: Connection;
let other: Connection;
let handled: string[];
let inbox: Inbox;

/** Uses the CPU of this thread for so long. */
function busy(ms: number): void {
  const before = process.threadCpuUsage();
  for (;;) {
    const { user, system } = process.threadCpuUsage(before);
    if (user + system >= ms * 1_000) return;
  }
}

async function connected(): Promise<Connection> {
  const accepted = once(server, 'connection') as Promise<[WebSocket, { socket: Socket }]>;
  const client = new WebSocket(`ws://127.0.0.1:${(server.address() as AddressInfo).port}/`);
  clients.push(client);
  const [[ws, { socket }]] = await Promise.all([accepted, once(client, 'open')]);
  return new Connection(ws, socket);
}

beforeEach(async () => {
  clients = [];
  handled = [];
  server = new WebSocketServer({ port: 0, host: '127.0.0.1' });
  await once(server, 'listening');
  [flooding, other] = [await connected(), await connected()];
  inbox = new Inbox({
    maxQueueBytes: 1_000_000,
    handle: (_connection, message) => {
      busy(messageMs);
      handled.push(message.toString());
    },
  });
});

afterEach(async () => {
  inbox.stop();
  for (const client of clients) client.terminate();
  await new Promise((resolve) => server.close(resolve));
});

const receive = (connection: Connection, ...names: string[]) => {
  for (const name of names) inbox.receive(connection, Buffer.from(name));
};
const numbered = (count: number) => Array.from({ length: count }, (_, i) => `flood ${i}`);

test('messages wait once their connection has spent its credit, and those of another are handled at once', () => {
  receive(flooding, ...numbered(30));
  expect(handled.length).toBeGreaterThan(0);
  expect(handled.length).toBeLessThan(60 / messageMs);
  receive(other, 'other');
  expect(handled.at(-1)).toBe('other');
});

test('connections without credit take turns, one message each', async () => {
  for (const connection of [flooding, other]) connection.spendCredit(1_000);
  receive(flooding, ...numbered(10));
  receive(other, 'other');
  await until('the other message is handled', () => handled.includes('other'), 2_000);
  expect(handled.indexOf('other')).toBe(1);
});

test('waiting messages take at most a quarter of the event loop', async () => {
  flooding.spendCredit(1_000);
  const started = performance.now();
  receive(flooding, ...numbered(30));
  await until('every message is handled', () => handled.length === 30, 10_000);
  expect((30 * messageMs) / (performance.now() - started)).toBeLessThan(0.25);
});
