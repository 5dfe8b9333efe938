// When a socket counts as drained, on a real one whose other end does not read.

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

/** A socket that a server accepted, and its client, which reads nothing yet. */
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

test('is drained when the other end has read, also where less than the high-water mark was unsent', async () => {
  const { accepted, client } = await pair();
  const outlet = new Outlet(accepted, webSocketFraming, { cursors: [] });
  fill(outlet);
  // this is when no 'drain' will come
  expect(accepted.writableNeedDrain).toBe(false);
  let isDrained = false;
  const drained = outlet.drained().finally(() => {
    isDrained = true;
  });
  await remains('it waits for the other end', () => !isDrained, 100);
  client.resume();
  await until('it is drained', () => isDrained, 3_000);
  await drained;
  expect(outlet.queuedBytes).toBe(0);
});

test('is drained when it has closed', async () => {
  const { accepted, client } = await pair();
  const outlet = new Outlet(accepted, webSocketFraming, { cursors: [] });
  fill(outlet);
  const drained = outlet.drained();
  client.destroy();
  await drained;
});

test('is drained at once where nothing is unsent', async () => {
  const { accepted } = await pair();
  await new Outlet(accepted, webSocketFraming, { cursors: [] }).drained();
});

test.each([
  ['has closed', (client: Socket) => client.destroy()],
  ['has read', (client: Socket) => client.resume()],
])('any number may wait, for one listener, until the other end %s', async (_what, end) => {
  const { accepted, client } = await pair();
  const outlet = new Outlet(accepted, webSocketFraming, { cursors: [] });
  fill(outlet);
  const before = accepted.listenerCount('close');
  const drained = Array.from({ length: 100 }, () => outlet.drained());
  expect(accepted.listenerCount('close')).toBe(before + 1);
  end(client);
  await Promise.all(drained);
});
