// The iterator and its signal: one that outlives many iterators keeps none of them, however they end.

import { getEventListeners } from 'node:events';
import { expect, test } from 'vitest';
import { type Attach, ChangeIterator } from '#client/change-iterator.ts';
import type { Delivery } from '#client/state/stream.ts';

/** An iterator whose subscription is told by hand. */
function begin(signal: AbortSignal, atOnce?: Delivery) {
  let take: ((delivery: Delivery) => void) | null = null;
  const attach: Attach = (_from, given) => {
    take = given;
    if (atOnce) given(atOnce);
    return () => {
      take = null;
    };
  };
  const changes = new ChangeIterator(attach, { from: null, bufferSize: 10, signal });
  return { changes, tell: (delivery: Delivery) => take!(delivery), isAttached: () => take !== null };
}

const listeners = (signal: AbortSignal) => getEventListeners(signal, 'abort').length;
const over = { done: true, value: undefined };
const refusal: Delivery = { kind: 'error', code: 'UNKNOWN_TABLE', message: 'no' };

test('lets go of its signal however it ends', async () => {
  const { signal } = new AbortController();
  const [returned, refused, resynced, closed] = [begin(signal), begin(signal), begin(signal), begin(signal)];
  expect(listeners(signal)).toBe(4);
  await returned.changes.return();
  refused.tell(refusal);
  resynced.tell({ kind: 'resync', reason: 'retention' });
  closed.tell({ kind: 'state', state: 'ended' });
  expect(listeners(signal)).toBe(0);
  const onTheSpot = begin(signal, refusal);
  expect(listeners(signal)).toBe(0);
  await expect(onTheSpot.changes.next()).rejects.toMatchObject({ code: 'UNKNOWN_TABLE' });
});

test('what ended it is not told any more to one who has left it', async () => {
  const { changes, tell } = begin(new AbortController().signal);
  tell({ kind: 'resync', reason: 'retention' });
  expect([await changes.return(), await changes.next()]).toEqual([over, over]);
});

test('ends with its signal, and subscribes to nothing where that was before', async () => {
  const end = new AbortController();
  const { changes, isAttached } = begin(end.signal);
  const waiting = changes.next();
  end.abort();
  expect([await waiting, await changes.next(), isAttached(), listeners(end.signal)]).toEqual([over, over, false, 0]);
  const late = begin(end.signal);
  expect([await late.changes.next(), late.isAttached(), listeners(end.signal)]).toEqual([over, false, 0]);
});
