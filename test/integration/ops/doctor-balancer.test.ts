// The doctor on an address where something other than Plank answers, or something besides it: a page at every path, another
// application's health, another application's WebSockets.

import { createServer, type RequestListener, type ServerResponse } from 'node:http';
import type { AddressInfo } from 'node:net';
import { afterAll, beforeAll, expect, test } from 'vitest';
import { WebSocketServer } from 'ws';
import { examineBalancer } from '#deploy/doctor/balancer.ts';
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

/** A balancer that passes some paths to Plank and answers the others with a page. */
function before(passes: RegExp): RequestListener {
  const pass = async (path: string, response: ServerResponse) => {
    const answer = await fetch(plank.url + path);
    response.writeHead(answer.status, { 'Content-Type': answer.headers.get('content-type') ?? '' });
    response.end(await answer.text());
  };
  return (request, response) =>
    passes.test(request.url!) ? void pass(request.url!, response) : page(request, response);
}

/** The doctor's findings on a server. */
async function examine(listener: RequestListener, socketsOf?: (server: ReturnType<typeof createServer>) => void) {
  const server = createServer(listener);
  socketsOf?.(server);
  await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve));
  const url = `http://127.0.0.1:${(server.address() as AddressInfo).port}`;
  const findings: string[] = [];
  try {
    for await (const { level, says } of examineBalancer({ url, tables: ['items'], patient: false, say: () => {} }))
      findings.push(`${level}: ${says.replace(url, '<url>')}`);
  } finally {
    server.closeAllConnections();
    await new Promise((resolve) => server.close(resolve));
  }
  return findings;
}

test('the doctor does not take a page at every path for a gateway', async () => {
  expect(await examine(page)).toEqual([
    "fault: something other than a gateway answers at <url>: its /health answers 200, but not as Plank's does",
  ]);
});

test("the doctor does not take another application's health for a gateway's", async () => {
  for (const health of [{ status: 'ok' }, { status: 'ok', node: 'v24.1.0' }, null, []])
    expect(
      await examine((_request, response) => void response.end(JSON.stringify(health))),
      JSON.stringify(health),
    ).toEqual([expect.stringMatching(/^fault: something other than a gateway answers/)]);
});

test('the doctor names paths that do not reach the gateway, and reports no missing page as open', async () => {
  expect(await examine(before(/^\/health$/))).toEqual([
    'ok: <url> answers, through test',
    'ok: pages for operators are not reachable here',
    'fault: something other than a gateway answers at /api/items/changes (text/html)',
    'fault: the WebSocket handshake is answered with 200, so something other than a gateway answers at /ws',
  ]);
});

test('the doctor reports metrics that are open to everybody', async () => {
  expect(await examine(before(/^\/(health|metrics)$/))).toContainEqual(
    expect.stringMatching(/^warning: everybody who reaches \S+ can read \/metrics$/),
  );
});

test('the doctor needs no token to see that a gateway which asks for one can be reached', async () => {
  const gateway = await plank.startGateway({ AUTH: 'jwt', AUTH_JWT_SECRET: 'x'.repeat(32) });
  const findings: string[] = [];
  const url = `http://127.0.0.1:${gateway.port}`;
  for await (const { level, says } of examineBalancer({ url, tables: ['items'], patient: true, say: () => {} }))
    findings.push(`${level}: ${says}`);
  expect(findings.slice(-3)).toEqual([
    'note: event streams were not examined: the gateway asks for a token',
    expect.stringMatching(/^ok: a WebSocket opens in /),
    expect.stringMatching(/^ok: a silent connection is kept from ping to ping/),
  ]);
});

test('the doctor reports that something else takes WebSockets', async () => {
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
