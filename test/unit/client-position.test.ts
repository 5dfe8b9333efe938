// The position that the SDK gives to an application: never one that would repeat or lose changes when it is passed as `from`.

import type { AddressInfo } from 'node:net';
import { afterEach, expect, test } from 'vitest';
import { WebSocketServer } from 'ws';
import { createPlank } from '#client/plank-client.ts';
import type { ServerFrame } from '#shared/wire.ts';
import { until } from '../support/wait.ts';

const stack: (() => void)[] = [];
afterEach(() => {
  for (const close of stack.splice(0)) close();
});

/** A server that answers a subscribe by these frames. */
async function scripted(frames: readonly object[]): Promise<string> {
  const server = new WebSocketServer({ port: 0, host: '127.0.0.1', handleProtocols: () => 'plank.v1' });
  stack.push(() => server.close());
  server.on('connection', (socket) => {
    const send = (...messages: object[]) => {
      for (const message of messages) socket.send(JSON.stringify(message));
    };
    stack.push(() => socket.terminate());
    socket.on('message', (text: Buffer) => {
      const { type, id } = JSON.parse(text.toString()) as { type: string; id?: number };
      if (type === 'hello')
        send({ type: 'welcome', node: 'gateway-1', ping_ms: 20_000, pos: 'e1.5' } satisfies ServerFrame);
      if (type === 'subscribe') send({ type: 'ok', id, ch: 'a' }, ...frames);
    });
  });
  await new Promise((resolve) => server.once('listening', resolve));
  return `ws://127.0.0.1:${(server.address() as AddressInfo).port}/ws`;
}

const change = (seq: number) => {
  return {
    type: 'change',
    ch: 'a',
    effect: 'change',
    table: 'items',
    action: 'UPDATE',
    id: 1,
    data: { id: 1 },
    pos: `e1.${seq}`,
    tx: `${seq}`,
    last: true,
  };
};

test.each([
  [
    'rows and changes after them',
    [{ type: 'rows', ch: 'a', rows: [{ id: 1 }], more: false }, change(6), change(7)],
    null,
  ],
  [
    'live after rows',
    [{ type: 'rows', ch: 'a', rows: [], more: false }, change(6), { type: 'live', ch: 'a', pos: 'e1.8' }],
    'e1.8',
  ],
  [
    'a change after live',
    [{ type: 'rows', ch: 'a', rows: [], more: false }, { type: 'live', ch: 'a', pos: 'e1.8' }, change(9)],
    'e1.9',
  ],
  [
    'rows again after a resync',
    [
      { type: 'rows', ch: 'a', rows: [], more: false },
      { type: 'live', ch: 'a', pos: 'e1.8' },
      { type: 'resync', ch: 'a', reason: 'shape' },
      { type: 'rows', ch: 'a', rows: [{ id: 1 }], more: false },
      change(9),
    ],
    null,
  ],
] as const)(
  'the position of a subscription with rows after %s is right to resume from',
  async (_, frames, position) => {
    const plank = createPlank({ url: await scripted(frames) });
    stack.push(() => plank.close());
    const seen: string[] = [];
    const items = plank.table('items').subscribe(
      { snapshot: true },
      {
        onChange: ({ pos }) => seen.push(pos),
        onSnapshot: () => seen.push('rows'),
        onState: (state) => seen.push(state),
      },
    );
    const expected = frames.filter(({ type }) => type === 'change' || type === 'rows').length;
    await until(
      'all have come',
      () => seen.filter((what) => what === 'rows' || what.startsWith('e1.')).length === expected,
      5_000,
    );
    if (frames.some(({ type }) => type === 'live')) await until('it has been live', () => seen.includes('live'), 5_000);
    expect(items.position()).toBe(position);
  },
);
