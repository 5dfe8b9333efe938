// The rows of a live query: keys, effects, and transactions that are applied at once.

import * as fc from 'fast-check';
import { describe, expect, test } from 'vitest';
import { LiveRows, maxHeldChanges, rowKey } from '#client/live/rows.ts';
import type { ChangeFrame, Effect } from '#shared/wire.ts';

interface Item {
  id: number;
  name: string;
}

let seq = 0;
function change(
  effect: Effect,
  id: unknown,
  options: { tx?: string; last?: boolean; pos?: string; name?: string } = {},
): ChangeFrame {
  const { tx = 'one', last = true, pos = `e1.${++seq}`, name = 'new' } = options;
  const action = effect === 'add' ? 'INSERT' : effect === 'change' ? 'UPDATE' : id === null ? 'TRUNCATE' : 'DELETE';
  const key = typeof id === 'object' ? id : { id };
  const data = effect === 'remove' ? {} : { data: { ...key, name } };
  return { type: 'change', ch: 'a', table: 'items', effect, action, id, ...data, pos, tx, ...(last ? { last } : {}) };
}

function liveRows(...ids: number[]): LiveRows<Item> {
  const live = new LiveRows<Item>();
  live.replace(ids.map((id) => ({ id, name: 'old' })));
  return live;
}

const keys = (live: LiveRows<Item>) => [...live.rows.keys()];

describe('rows', () => {
  test('changes add, change and remove rows', () => {
    const live = liveRows(1, 2);
    live.apply(change('add', 3));
    live.apply(change('change', 1));
    live.apply(change('remove', 2));
    expect(Object.fromEntries(live.rows)).toEqual({ 1: { id: 1, name: 'new' }, 3: { id: 3, name: 'new' } });
  });

  test('a remove without an id removes every row', () => {
    const live = liveRows(1, 2);
    live.apply(change('remove', null));
    expect(keys(live)).toEqual([]);
  });

  test('a snapshot replaces the rows, and voids held changes', () => {
    const live = liveRows(1, 2);
    live.apply(change('add', 3, { last: false }));
    live.replace([{ id: 9, name: 'fresh' }]);
    live.reach('e1.999999');
    expect(keys(live)).toEqual([9]);
  });

  test('a row of a composite key is found whatever the order of its columns', () => {
    const live = new LiveRows<{ a: number; b: string; name: string }>();
    live.replace([{ name: 'old', b: 'x', a: 1 }], ['b', 'a']);
    live.apply(change('change', { b: 'x', a: 1 }));
    expect(Object.fromEntries(live.rows)).toEqual({ '{"a":1,"b":"x"}': { a: 1, b: 'x', name: 'new' } });
  });

  test('rows with keys beyond 2^53 stay apart', () => {
    const live = new LiveRows<{ id: bigint; name: string }>();
    live.replace([{ id: 9007199254740993n, name: 'old' }]);
    live.apply(change('add', 9007199254740995n));
    expect([...live.rows.keys()]).toEqual([9007199254740993n, 9007199254740995n]);
    expect(rowKey({ a: 9007199254740993n })).toBe('{"a":9007199254740993}');
  });

  test('a row without the key column throws, and leaves the rows as they were', () => {
    const live = liveRows(1);
    expect(() => live.replace([{ name: 'no id' } as Item])).toThrow('a row has no column "id"');
    expect(keys(live)).toEqual([1]);
  });
});

describe('a transaction', () => {
  test('a transaction is applied at its last change', () => {
    const live = liveRows(1);
    const { version } = live;
    expect(live.apply(change('remove', 1, { last: false }))).toBe(false);
    expect([keys(live), live.version]).toEqual([[1], version]);
    expect(live.apply(change('add', 2))).toBe(true);
    expect([keys(live), live.version]).toEqual([[2], version + 1]);
  });

  test('a transaction without a last change is applied when another begins', () => {
    const live = liveRows();
    live.apply(change('add', 1, { tx: 'one', last: false }));
    expect(live.apply(change('add', 2, { tx: 'two', last: false }))).toBe(true);
    expect(keys(live)).toEqual([1]);
  });

  test('a transaction without a last change is applied by a position after it, not by its own', () => {
    const live = liveRows();
    live.apply(change('add', 1, { last: false, pos: 'e1.50' }));
    expect(live.reach('e1.50')).toBe(false);
    expect(live.reach('e1.51')).toBe(true);
    expect(live.reach('e1.52')).toBe(false);
    expect(keys(live)).toEqual([1]);
  });

  test('a transaction of more than maxHeldChanges is applied in parts', () => {
    const live = liveRows();
    for (let id = 1; id < maxHeldChanges; id++) live.apply(change('add', id, { last: false }));
    expect(live.rows.size).toBe(0);
    live.apply(change('add', maxHeldChanges, { last: false }));
    expect(live.rows.size).toBe(maxHeldChanges);
  });

  test('a transaction is seen whole or not at all, and in the end every change is there', () => {
    const operation = fc.record({ effect: fc.constantFrom<Effect>('add', 'change', 'remove'), id: fc.nat(5) });
    const transaction = fc.record({
      operations: fc.array(operation, { minLength: 1, maxLength: 5 }),
      hasLast: fc.boolean(),
    });
    fc.assert(
      fc.property(fc.array(transaction, { maxLength: 20 }), (transactions) => {
        const live = liveRows();
        const folded = new Map<unknown, unknown>();
        const moments = new Set([JSON.stringify([])]);
        const seen: string[] = [];
        for (const [number, { operations, hasLast }] of transactions.entries()) {
          for (const [i, { effect, id }] of operations.entries()) {
            const name = `${number}.${i}`;
            const last = hasLast && i === operations.length - 1;
            if (effect === 'remove') folded.delete(id);
            else folded.set(id, { id, name });
            live.apply(change(effect, id, { tx: String(number), last, name }));
            if (i === operations.length - 1) moments.add(JSON.stringify([...folded]));
            seen.push(JSON.stringify([...live.rows]));
          }
        }
        live.reach(`e1.${seq + 1}`);
        expect(seen.filter((picture) => !moments.has(picture))).toEqual([]);
        expect([...live.rows]).toEqual([...folded]);
      }),
    );
  });
});
