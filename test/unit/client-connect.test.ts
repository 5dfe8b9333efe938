// Where no connection can be made at all: said to whoever can do something about it, instead of tried without a word.

import { afterEach, expect, test, vi } from 'vitest';
import { createPlank } from '../../client/plank-client.ts';
import { until } from '../support/wait.ts';

afterEach(() => vi.unstubAllGlobals());

test.each(['ftp://localhost/ws', 'file:///ws'])('%s is refused at once', (url) => {
  expect(() => createPlank({ url })).toThrow(/^createPlank needs a url of ws\(s\):\/\/ or http\(s\):\/\//);
});

test('a runtime without WebSocket is refused with the first subscription, and with the next', () => {
  const plank = createPlank({ url: 'ws://localhost/ws' });
  vi.stubGlobal('WebSocket', undefined);
  const items = plank.table('items');
  for (const ask of [() => items.live(), () => items.live(), () => items.changes(), () => items.subscribe({}, {})])
    expect(ask).toThrow(/there is no WebSocket here/);
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
  expect(errors[0]).toMatch(/^no connection could be made: ./);
  expect(plank.state).toBe('waiting');
  items.close();
  plank.close();
});
