// A server that cannot be reached: the application gets an error, and attempts go on.

import { type AddressInfo, createServer } from 'node:net';
import { afterEach, expect, test, vi } from 'vitest';
import { createPlank } from '#client/plank-client.ts';
import { until } from '../support/wait.ts';

afterEach(() => vi.unstubAllGlobals());

test.each(['ftp://localhost/ws', 'file:///ws'])('%s is refused at once', (url) => {
  expect(() => createPlank({ url })).toThrow(/^the url of createPlank must begin with ws\(s\):\/\/ or http\(s\):\/\//);
});

test('a runtime without WebSocket is refused with the first subscription, and with the next', () => {
  const plank = createPlank({ url: 'ws://localhost/ws' });
  vi.stubGlobal('WebSocket', undefined);
  const items = plank.table('items');
  for (const ask of [() => items.live(), () => items.live(), () => items.changes(), () => items.subscribe({}, {})])
    expect(ask).toThrow(/there is no global WebSocket/);
  expect(plank.state).toBe('idle');
});

test('a WebSocket that cannot be made is reported, and tried again', async () => {
  const errors: string[] = [];
  class Forbidden extends WebSocket {
    constructor() {
      super('ftp://localhost/');
    }
  }
  const options = { WebSocket: Forbidden, onError: ({ message }: Error) => errors.push(message) };
  const plank = createPlank({ url: 'ws://localhost/ws', ...options });
  const items = plank.table('items').live();
  await until('it is reported', () => errors.length > 0, 2_000);
  expect(errors[0]).toMatch(/^no connection to Plank \(.+\): attempt 1 failed, the next one is in \d+ ms$/);
  expect(plank.state).toBe('waiting');
  items.close();
  plank.close();
});

/** A server that answers an upgrade so, or a port where nobody listens. */
async function serverOf(answer: string | null): Promise<{ url: string; attempts: () => number; close: () => void }> {
  let attempts = 0;
  const server = createServer((socket) => {
    attempts++;
    socket.on('error', () => {});
    socket.once('data', () => socket.end(answer ?? ''));
  });
  await new Promise<void>((resolve) => void server.listen(0, '127.0.0.1', resolve));
  const { port } = server.address() as AddressInfo;
  const close = () => void server.close();
  if (answer === null) await new Promise((resolve) => server.close(resolve));
  return { url: `ws://127.0.0.1:${port}/ws`, attempts: () => attempts, close };
}

test.each([
  ['a closed port', null],
  ['no answer at all', ''],
  ['200', 'HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nhi'],
  ['403', 'HTTP/1.1 403 Forbidden\r\ncontent-length: 0\r\n\r\n'],
  ['404', 'HTTP/1.1 404 Not Found\r\ncontent-length: 0\r\n\r\n'],
  ['another protocol', 'SSH-2.0-OpenSSH_9.2\r\n'],
])(
  'a server that cannot be reached (%s) is reported once, by onError or else on the console',
  async (_what, answer) => {
    const server = await serverOf(answer);
    const logged = vi.spyOn(console, 'error').mockImplementation(() => {});
    try {
      const errors: Error[] = [];
      const reported = createPlank({ url: server.url, onError: (error) => errors.push(error) });
      const silent = createPlank({ url: server.url });
      const states: string[] = [];
      for (const plank of [reported, silent]) plank.table('items').live();
      reported.onState(({ status }) => states.push(status));
      const isTriedAgain = () => states.filter((status) => status === 'waiting').length >= 2;
      await until('it has been tried twice', isTriedAgain, 8_000);
      expect(errors).toMatchObject([{ name: 'PlankError', code: 'UNREACHABLE' }]);
      expect(errors[0]!.message).toMatch(/^no connection to Plank \(.+\): attempt 1 failed, the next one is in \d+ ms/);
      expect(logged.mock.calls).toEqual([[expect.stringMatching(/^plank: no connection to Plank /)]]);
      for (const plank of [reported, silent]) plank.close();
    } finally {
      logged.mockRestore();
      server.close();
    }
  },
);
