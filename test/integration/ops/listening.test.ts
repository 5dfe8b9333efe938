// Which addresses a server answers on with each HOST: those of this machine alone, and those of the network.

import { createServer } from 'node:http';
import { type AddressInfo, connect, createServer as createTcpServer } from 'node:net';
import { networkInterfaces } from 'node:os';
import { afterEach, describe, expect, test } from 'vitest';
import { WebSocket } from 'ws';
import { HttpServer } from '#listener/http.ts';
import { gatewaySchema, listenerSchema, readConfig } from '#shared/process/config.ts';
import { close, listen } from '#shared/process/listen.ts';
import { createRegistry } from '#shared/process/metrics.ts';
import { createDatabase } from '../../support/servers/servers.ts';
import { startEmbedded } from '../../support/stage/embedded.ts';

const addresses = Object.values(networkInterfaces()).flatMap((each) => each ?? []);
const outer4 = addresses.find(({ family, internal }) => family === 'IPv4' && !internal)?.address;
const outer6 = addresses.find(({ family, internal, scopeid }) => family === 'IPv6' && !internal && !scopeid)?.address;
const inner6 = addresses.find(({ address }) => address === '::1')?.address;
/** those of these addresses that this machine has */
const all = ['127.0.0.1', inner6, outer4, outer6].filter((address) => address !== undefined);
const settings = { host: 'HOST', port: 'PORT' };
const stack: (() => Promise<unknown>)[] = [];

afterEach(async () => {
  for (const end of stack.splice(0).toReversed()) await end();
});

/** The addresses of this machine at which something accepts connections. */
async function answering(port: number): Promise<string[]> {
  const tried = await Promise.all(
    all.map(
      (host) =>
        new Promise<boolean>((resolve, reject) => {
          const socket = connect({ host, port, timeout: 5_000 });
          socket.once('connect', () => resolve(true)).once('timeout', () => reject(new Error(`${host} is silent`)));
          socket.once('error', ({ message }) =>
            message.includes('REFUSED') ? resolve(false) : reject(new Error(message)),
          );
          socket.once('connect', () => socket.destroy());
        }),
    ),
  );
  return all.filter((_, i) => tried[i]);
}

const inner = all.filter((address) => address === '127.0.0.1' || address === '::1');
const of4 = all.filter((address) => address.includes('.'));

test.each([
  ['localhost', inner],
  ['127.0.0.1', ['127.0.0.1']],
  ...(inner6 ? [[inner6, [inner6]] as const] : []),
  ['::', all],
  ['0.0.0.0', of4],
  ...(outer4 ? [[outer4, [outer4]] as const] : []),
  ...(outer6 ? [[outer6, [outer6]] as const] : []),
] as const)('a server listens on the right addresses with HOST=%s', async (host, expected) => {
  const server = createServer((_, response) => response.end('here'));
  const also = await listen(server, { host, port: 0, settings });
  const { port } = server.address() as AddressInfo;
  expect(await answering(port)).toEqual(expected);
  for (const address of expected) {
    const answer = await fetch(`http://${address.includes(':') ? `[${address}]` : address}:${port}/`);
    expect(await answer.text()).toBe('here');
  }
  server.closeAllConnections();
  await Promise.all([server, ...also].map(close));
  expect(await answering(port)).toEqual([]);
});

test.each([
  ['203.0.113.9', 0, /^HOST: this machine has no address "203\.0\.113\.9"; "localhost" is this machine only/],
  ['no-such-host.invalid', 0, /^HOST: this machine has no address "no-such-host\.invalid"/],
])('HOST=%s is refused in one line', async (host, port, reason) => {
  await expect(listen(createServer(), { host, port, settings })).rejects.toThrow(reason);
});

test.each(inner)('a port that another program has at %s is refused, and nothing is left behind', async (address) => {
  const other = createTcpServer();
  await new Promise<void>((resolve) => other.listen(0, address, resolve));
  stack.push(() => close(other));
  const { port } = other.address() as AddressInfo;
  const reason = `port ${port}: address already in use; set PORT to another one`;
  await expect(listen(createServer(), { host: 'localhost', port, settings })).rejects.toThrow(reason);
  expect(await answering(port)).toEqual([address]);
});

describe('without a setting', () => {
  test('a gateway listens on this machine only by default, and ends with its clients of either address', async () => {
    const database = await createDatabase();
    stack.push(() => database.drop());
    const embedded = await startEmbedded(database.url);
    stack.push(() => embedded.stop());
    expect(await answering(Number(new URL(embedded.url).port))).toEqual(inner);
    expect(await answering(Number(new URL(embedded.opsUrl).port))).toEqual(inner);
    const sockets = inner.map((address) => {
      const { port } = new URL(embedded.url);
      return new WebSocket(`ws://${address.includes(':') ? `[${address}]` : address}:${port}/ws`);
    });
    await Promise.all(sockets.map((socket) => new Promise((resolve) => socket.once('open', resolve))));
    const closed = Promise.all(sockets.map((socket) => new Promise((resolve) => socket.once('close', resolve))));
    await embedded.stop();
    expect(await closed).toEqual(inner.map(() => 1012));
    expect(await answering(Number(new URL(embedded.url).port))).toEqual([]);
  });

  test('a listener listens on this machine only by default', async () => {
    const env = { DATABASE_URL: 'postgres://h/d' };
    const { HOST: host } = readConfig(listenerSchema, env);
    expect(readConfig(gatewaySchema, env).OPS_HOST).toBe(host);
    const ops = new HttpServer({ host, port: 0, registry: createRegistry('test'), health: () => ({ ready: true }) });
    await ops.start();
    stack.push(() => ops.stop());
    const { port } = ops;
    expect(await answering(port)).toEqual(inner);
    await ops.stop();
    expect(await answering(port)).toEqual([]);
  });
});
