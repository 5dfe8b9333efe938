// The iterator and its signal: a signal that outlives many iterators keeps none of them in memory,
// however they end.

import { getEventListeners } from 'node:events';
import { expect, test } from 'vitest';
import { type Attach, ChangeIterator } from '#client/change-iterator.ts';
import type { Delivery } from '#client/state/delivery.ts';

/** An iterator whose subscription a test feeds. */
function begin(signal: AbortSignal, atOnce?: Delivery) {
  let receive: ((delivery: Delivery) => void) | null = null;
  const attach: Attach = (_from, given) => {
    receive = given;
    if (atOnce) given(atOnce);
    return () => {
      receive = null;
    };
  };
  const changes = new ChangeIterator(attach, { from: null, bufferSize: 10, signal });
  return { changes, deliver: (delivery: Delivery) => receive!(delivery), isAttached: () => receive !== null };
}

const listeners = (signal: AbortSignal) => getEventListeners(signal, 'abort').length;
const over = { done: true, value: undefined };
const refusal: Delivery = { kind: 'error', code: 'UNKNOWN_TABLE', message: 'no' };

test('the iterator removes its listener from the signal however it ends', async () => {
  const { signal } = new AbortController();
  const [returned, refused, resynced, closed] = [begin(signal), begin(signal), begin(signal), begin(signal)];
  expect(listeners(signal)).toBe(4);
  await returned.changes.return();
  refused.deliver(refusal);
  resynced.deliver({ kind: 'resync', reason: 'retention' });
  closed.deliver({ kind: 'state', state: 'ended' });
  expect(listeners(signal)).toBe(0);
  const onTheSpot = begin(signal, refusal);
  expect(listeners(signal)).toBe(0);
  await expect(onTheSpot.changes.next()).rejects.toMatchObject({ code: 'UNKNOWN_TABLE' });
});

test('a consumer that has left the iteration does not get its error', async () => {
  const { changes, deliver } = begin(new AbortController().signal);
  deliver({ kind: 'resync', reason: 'retention' });
  expect([await changes.return(), await changes.next()]).toEqual([over, over]);
});

test('the iterator ends with its signal, and does not subscribe where the signal was aborted before', async () => {
  const end = new AbortController();
  const { changes, isAttached } = begin(end.signal);
  const waiting = changes.next();
  end.abort();
  expect([await waiting, await changes.next(), isAttached(), listeners(end.signal)]).toEqual([over, over, false, 0]);
  const late = begin(end.signal);
  expect([await late.changes.next(), late.isAttached(), listeners(end.signal)]).toEqual([over, false, 0]);
});
