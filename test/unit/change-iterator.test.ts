// `position()` of the iterator: never beyond what the consumer has handled, wherever it pauses, goes on or ends.

import { expect, test } from 'vitest';
import { ChangeIterator, type PlankError } from '#client/change-iterator.ts';
import type { Delivery } from '#client/state/stream.ts';
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

/** A subscription that is told by hand: `from` of each time that it was asked for. */
class Source {
  readonly from: (string | null)[] = [];
  #take: ((delivery: Delivery) => void) | null = null;
  readonly changes: ChangeIterator;

  constructor(from: string | null, bufferSize: number) {
    const attach = (position: string | null, take: (delivery: Delivery) => void) => {
      this.from.push(position);
      this.#take = take;
      return () => {
        if (this.#take === take) this.#take = null;
      };
    };
    this.changes = new ChangeIterator(attach, { from, bufferSize });
  }

  get isAttached(): boolean {
    return this.#take !== null;
  }

  /** As the server would: behind the position that was asked for, as long as somebody listens. Returns the last. */
  send(first: number, last: number): number {
    for (let n = first; n <= last; n++) {
      if (!this.#take) return n - 1;
      this.#take({ kind: 'change', change: change(n) });
    }
    return last;
  }

  tell(delivery: Delivery): void {
    this.#take!(delivery);
  }
}

const next = async ({ changes }: Source) => (await changes.next()).value?.id;

test('pauses at its bound, and goes on behind what it took in when half is consumed', async () => {
  const source = new Source(at(0), 4);
  expect(source.send(1, 10)).toBe(4);
  expect(source.isAttached).toBe(false);
  expect(source.changes.position()).toBe(at(0));
  const positions: unknown[] = [];
  for (let n = 1; n <= 4; n++) {
    positions.push([await next(source), source.changes.position(), source.isAttached]);
  }
  // one that is in hand is not handled
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

test('a position that comes while changes wait is not handled before they are', async () => {
  const source = new Source(at(0), 4);
  source.send(1, 2);
  source.tell({ kind: 'position', pos: at(90) });
  expect(source.changes.position()).toBe(at(0));
  expect(await next(source)).toBe(1);
  expect(await next(source)).toBe(2);
  expect(source.changes.position()).toBe(at(1));
  const waiting = source.changes.next();
  // all is handled, and nothing concerned it since
  expect(source.changes.position()).toBe(at(90));
  source.tell({ kind: 'position', pos: at(95) });
  expect(source.changes.position()).toBe(at(95));
  source.send(96, 96);
  expect((await waiting).value!.id).toBe(96);
  expect(source.changes.position()).toBe(at(95));
});

test('paused at its bound by a consumer that stops, it says where another would go on', async () => {
  const source = new Source(null, 2);
  expect(source.changes.position()).toBeNull();
  source.tell({ kind: 'position', pos: at(3) });
  source.send(4, 9);
  expect(await next(source)).toBe(4);
  expect(source.changes.position()).toBeNull();
  expect(await next(source)).toBe(5);
  expect(source.changes.position()).toBe(at(4));
  await source.changes.return();
  expect(source.changes.position()).toBe(at(4));
  expect(source.isAttached).toBe(false);
});

test('what was taken in before a gap is handed out before the gap is told', async () => {
  const source = new Source(at(0), 10);
  source.send(1, 2);
  source.tell({ kind: 'resync', reason: 'retention' });
  expect([await next(source), await next(source)]).toEqual([1, 2]);
  await expect(source.changes.next()).rejects.toMatchObject({ code: 'RESYNC' } satisfies Partial<PlankError>);
  expect(source.changes.position()).toBe(at(2));
  expect(await source.changes.next()).toEqual({ done: true, value: undefined });
});
