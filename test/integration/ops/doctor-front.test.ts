// What the doctor says of an address where something else answers than Plank, or besides it: a page for every path, another
// application's health, another's WebSockets.

import { createServer, type RequestListener, type ServerResponse } from 'node:http';
import type { AddressInfo } from 'node:net';
import { afterAll, beforeAll, expect, test } from 'vitest';
import { WebSocketServer } from 'ws';
import { examineFront } from '#deploy/doctor/front.ts';
import { createDatabase } from '../../support/servers/servers.ts';
import { type Embedded, startEmbedded } from '../../support/stage/embedded.ts';

const stack = new AsyncDisposableStack();
let plank: Embedded;

beforeAll(async () => {
  const database = await createDatabase();
  stack.defer(() => database.drop());
  plank = await startEmbedded(database.url);
  stack.defer(() => plank.stop());
});
afterAll(() => stack.disposeAsync());

const page: RequestListener = (_request, response) =>
  void response.writeHead(200, { 'Content-Type': 'text/html' }).end('<!doctype html><title>Shop</title>');

/** As a balancer that passes some paths on to Plank and leaves the others to a page. */
function before(passes: RegExp): RequestListener {
  const pass = async (path: string, response: ServerResponse) => {
    const answer = await fetch(plank.url + path);
    response.writeHead(answer.status, { 'Content-Type': answer.headers.get('content-type') ?? '' });
    response.end(await answer.text());
  };
  return (request, response) =>
    passes.test(request.url!) ? void pass(request.url!, response) : page(request, response);
}

/** What it says of a server. */
async function examine(listener: RequestListener, socketsOf?: (server: ReturnType<typeof createServer>) => void) {
  const server = createServer(listener);
  socketsOf?.(server);
  await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve));
  const url = `http://127.0.0.1:${(server.address() as AddressInfo).port}`;
  const said: string[] = [];
  try {
    for await (const { level, says } of examineFront({ url, tables: ['items'], patient: false, say: () => {} }))
      said.push(`${level}: ${says.replace(url, '<url>')}`);
  } finally {
    server.closeAllConnections();
    await new Promise((resolve) => server.close(resolve));
  }
  return said;
}

test('takes a page for every path for no gateway', async () => {
  expect(await examine(page)).toEqual([
    "fault: something other than a gateway answers at <url>: its /health answers 200, but not as Plank's does",
  ]);
});

test("takes another application's health for no gateway's", async () => {
  for (const health of [{ status: 'ok' }, { status: 'ok', node: 'v24.1.0' }, null, []])
    expect(
      await examine((_request, response) => void response.end(JSON.stringify(health))),
      JSON.stringify(health),
    ).toEqual([expect.stringMatching(/^fault: something other than a gateway answers/)]);
});

test('says which paths do not lead to the gateway, and calls no page open to everybody that is not there', async () => {
  expect(await examine(before(/^\/health$/))).toEqual([
    'ok: <url> answers, through test',
    'ok: pages for operators are not reachable here',
    'fault: something other than a gateway answers at /api/items/changes (text/html)',
    'fault: the WebSocket handshake is answered with 200, so something other than a gateway answers at /ws',
  ]);
});

test('still says that metrics are open where they are', async () => {
  expect(await examine(before(/^\/(health|metrics)$/))).toContainEqual(
    expect.stringMatching(/^warning: everybody who reaches \S+ can read \/metrics$/),
  );
});

test('says that WebSockets are taken by something else', async () => {
  const sockets = new WebSocketServer({ noServer: true, handleProtocols: () => false });
  const take = (server: ReturnType<typeof createServer>) =>
    void server.on('upgrade', (request, socket, head) => sockets.handleUpgrade(request, socket, head, () => {}));
  try {
    expect(await examine(before(/^\/health$/), take)).toContainEqual(
      expect.stringMatching(/^fault: something other than a gateway takes WebSockets at \/ws/),
    );
  } finally {
    for (const socket of sockets.clients) socket.terminate();
  }
});
