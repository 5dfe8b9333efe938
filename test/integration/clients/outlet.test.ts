// When an outlet counts as drained, on a real socket whose client does not read.

import { once } from 'node:events';
import { type AddressInfo, connect, createServer, type Socket } from 'node:net';
import { afterEach, expect, test } from 'vitest';
import { webSocketFraming } from '#gateway/channels/framing.ts';
import { Outlet } from '#gateway/relay/outlet.ts';
import { remains, until } from '../../support/wait.ts';

const sockets: Socket[] = [];
const chunk = Buffer.alloc(40_000);

afterEach(() => {
  for (const socket of sockets.splice(0)) socket.destroy();
});

/** A socket that a server accepted, and its client, which does not read yet. */
async function pair(): Promise<{ accepted: Socket; client: Socket }> {
  const server = createServer();
  server.listen(0, '127.0.0.1');
  await once(server, 'listening');
  const arrived = once(server, 'connection') as Promise<[Socket]>;
  const client = connect((server.address() as AddressInfo).port, '127.0.0.1').pause();
  const [accepted] = await arrived;
  server.close();
  for (const socket of [accepted, client]) socket.on('error', () => {});
  sockets.push(accepted, client);
  return { accepted, client };
}

/** Writes until the kernel takes no more: less than a chunk stays unsent. */
function fill(outlet: Outlet): void {
  while (outlet.queuedBytes === 0) outlet.write(chunk);
}

test('an outlet is drained once its client has read, even if less than the high-water mark was unsent', async () => {
  const { accepted, client } = await pair();
  const outlet = new Outlet(accepted, webSocketFraming, { cursors: [] });
  fill(outlet);
  // in this state no 'drain' event will come
  expect(accepted.writableNeedDrain).toBe(false);
  let isDrained = false;
  const drained = outlet.drained().finally(() => {
    isDrained = true;
  });
  await remains('the outlet waits for the client', () => !isDrained, 100);
  client.resume();
  await until('the outlet is drained', () => isDrained, 3_000);
  await drained;
  expect(outlet.queuedBytes).toBe(0);
});

test('an outlet is drained once its socket has closed', async () => {
  const { accepted, client } = await pair();
  const outlet = new Outlet(accepted, webSocketFraming, { cursors: [] });
  fill(outlet);
  const drained = outlet.drained();
  client.destroy();
  await drained;
});

test('an outlet is drained at once if nothing is unsent', async () => {
  const { accepted } = await pair();
  await new Outlet(accepted, webSocketFraming, { cursors: [] }).drained();
});

test.each([
  ['has closed', (client: Socket) => client.destroy()],
  ['has read', (client: Socket) => client.resume()],
])('any number of waits share one listener, until the client %s', async (_what, end) => {
  const { accepted, client } = await pair();
  const outlet = new Outlet(accepted, webSocketFraming, { cursors: [] });
  fill(outlet);
  const before = accepted.listenerCount('close');
  const drained = Array.from({ length: 100 }, () => outlet.drained());
  expect(accepted.listenerCount('close')).toBe(before + 1);
  end(client);
  await Promise.all(drained);
});
