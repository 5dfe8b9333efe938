// Pages of history that slow clients hold. What must stay true: what they hold together is bounded, and a page that many
// cursors share counts once.

import { expect, test } from 'vitest';
import { HeldPages } from '#gateway/relay/held-pages.ts';
import { batchOf } from '../support/truth/batches.ts';

const page = batchOf(1, 2, { bytes: 40_000 });
const other = batchOf(1, 2, { bytes: 40_000 });
const size = page.buffer.buffer.byteLength;

/** A client that takes its bytes when the test says so. */
function client() {
  const { promise, resolve } = Promise.withResolvers<void>();
  return { taken: () => promise, take: resolve };
}

test('a page that cursors share counts once, until the last of them lets go of it', async () => {
  const held = new HeldPages(size);
  const clients = Array.from({ length: 1_000 }, client);
  const holds = clients.map(({ taken }) => held.until(taken, [page]));
  expect(held.bytes).toBe(size);
  for (const { take } of clients.slice(1)) take();
  expect(await Promise.all(holds.slice(1))).toEqual(Array.from({ length: 999 }, () => true));
  expect(held.bytes).toBe(size);
  clients[0]!.take();
  expect(await holds[0]).toBe(true);
  expect(held.bytes).toBe(0);
});

test('a page above the bound is not held, and one that is held already is', async () => {
  const held = new HeldPages(size);
  const [first, second, third] = [client(), client(), client()];
  const hold = held.until(first.taken, [page]);
  expect(await held.until(second.taken, [other])).toBe(false);
  const shared = held.until(third.taken, [page]);
  expect(held.bytes).toBe(size);
  first.take();
  third.take();
  expect(await Promise.all([hold, shared])).toEqual([true, true]);
  const again = held.until(second.taken, [other]);
  expect(held.bytes).toBe(size);
  second.take();
  expect(await again).toBe(true);
});

test('a page whose client fails is let go of', async () => {
  const held = new HeldPages(size);
  await expect(held.until(() => Promise.reject(new Error('gone')), [page])).rejects.toThrow('gone');
  expect(held.bytes).toBe(0);
});

test('views of one buffer count once', async () => {
  const held = new HeldPages(size);
  const { taken, take } = client();
  const hold = held.until(taken, [page, { ...page }]);
  expect(held.bytes).toBe(size);
  take();
  expect(await hold).toBe(true);
});
