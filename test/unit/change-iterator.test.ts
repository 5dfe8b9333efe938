// `position()` of the iterator never passes what the consumer has handled, wherever the iterator
// pauses, goes on or ends.

import { expect, test } from 'vitest';
import { ChangeIterator } from '#client/change-iterator.ts';
import type { Delivery } from '#client/state/delivery.ts';
import type { PlankError } from '#client/values/plank-error.ts';
import type { ChangeFrame } from '#shared/wire.ts';

const at = (n: number) => `e1.${n}`;
const change = (n: number): ChangeFrame => ({
  type: 'change',
  ch: 'c',
  effect: 'add',
  table: 't',
  action: 'INSERT',
  id: n,
  data: { id: n },
  pos: at(n),
  tx: '7',
  last: true,
});

/** A subscription that a test feeds. `from` has the position of each time that it was requested. */
class Source {
  readonly from: (string | null)[] = [];
  #receive: ((delivery: Delivery) => void) | null = null;
  readonly changes: ChangeIterator;

  constructor(from: string | null, bufferSize: number) {
    const attach = (position: string | null, receive: (delivery: Delivery) => void) => {
      this.from.push(position);
      this.#receive = receive;
      return () => {
        if (this.#receive === receive) this.#receive = null;
      };
    };
    this.changes = new ChangeIterator(attach, { from, bufferSize });
  }

  get isAttached(): boolean {
    return this.#receive !== null;
  }

  /**
   * Changes as from a server, while the iterator is subscribed. Returns the last one that was sent.
   */
  send(first: number, last: number): number {
    for (let n = first; n <= last; n++) {
      if (!this.#receive) return n - 1;
      this.#receive({ kind: 'change', change: change(n) });
    }
    return last;
  }

  deliver(delivery: Delivery): void {
    this.#receive!(delivery);
  }
}

const next = async ({ changes }: Source) => (await changes.next()).value?.id;

test('the iterator pauses at its bound, and goes on after what it received when half is consumed', async () => {
  const source = new Source(at(0), 4);
  expect(source.send(1, 10)).toBe(4);
  expect(source.isAttached).toBe(false);
  expect(source.changes.position()).toBe(at(0));
  const positions: unknown[] = [];
  for (let n = 1; n <= 4; n++) {
    positions.push([await next(source), source.changes.position(), source.isAttached]);
  }
  // the change that the consumer works on is not handled yet
  expect(positions).toEqual([
    [1, at(0), false],
    [2, at(1), true],
    [3, at(2), true],
    [4, at(3), true],
  ]);
  expect(source.from).toEqual([at(0), at(4)]);
  expect(source.send(5, 10)).toBe(8);
  expect(source.isAttached).toBe(false);
});

test('a position that comes while changes wait is not handled before these changes', async () => {
  const source = new Source(at(0), 4);
  source.send(1, 2);
  source.deliver({ kind: 'position', pos: at(90) });
  expect(source.changes.position()).toBe(at(0));
  expect(await next(source)).toBe(1);
  expect(await next(source)).toBe(2);
  expect(source.changes.position()).toBe(at(1));
  const waiting = source.changes.next();
  // all is handled, and no change of these rows has come since
  expect(source.changes.position()).toBe(at(90));
  source.deliver({ kind: 'position', pos: at(95) });
  expect(source.changes.position()).toBe(at(95));
  source.send(96, 96);
  expect((await waiting).value!.id).toBe(96);
  expect(source.changes.position()).toBe(at(95));
});

test('an iterator that is left at its bound still gives the position for the next one', async () => {
  const source = new Source(null, 2);
  expect(source.changes.position()).toBeNull();
  source.deliver({ kind: 'position', pos: at(3) });
  source.send(4, 9);
  expect(await next(source)).toBe(4);
  expect(source.changes.position()).toBeNull();
  expect(await next(source)).toBe(5);
  expect(source.changes.position()).toBe(at(4));
  await source.changes.return();
  expect(source.changes.position()).toBe(at(4));
  expect(source.isAttached).toBe(false);
});

test('changes before a gap are delivered before the error of the gap', async () => {
  const source = new Source(at(0), 10);
  source.send(1, 2);
  source.deliver({ kind: 'resync', reason: 'retention' });
  expect([await next(source), await next(source)]).toEqual([1, 2]);
  await expect(source.changes.next()).rejects.toMatchObject({ code: 'RESYNC' } satisfies Partial<PlankError>);
  expect(source.changes.position()).toBe(at(2));
  expect(await source.changes.next()).toEqual({ done: true, value: undefined });
});
