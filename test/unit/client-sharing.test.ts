// Subscriptions that share one on the server: how they come to share it, what each of them gets,
// and how one leaves that needs rows, has lost changes, or has too many rows.

import { describe, expect, test } from 'vitest';
import type { Effect, Event } from '#client/state/model.ts';
import {
  change,
  deliveries,
  frame,
  isLive,
  live,
  ok,
  query,
  requested,
  rows,
  run,
  sends,
  subscribe,
} from '../support/truth/machine.ts';

describe('more rows than maxRows', () => {
  const bounded = (member: number, maxRows: number): Event => ({
    type: 'subscribe',
    member,
    query,
    from: null,
    snapshot: true,
    maxRows,
  });

  test('a subscription with too many rows ends before the last page, and no other does', () => {
    const both = run([bounded(1, 1), bounded(2, 2), ...requested.slice(1), ok(1), rows(true), rows(true)]);
    expect(deliveries(both.effects, 1).slice(-2)).toEqual([
      { kind: 'error', code: 'TOO_MANY_ROWS', message: expect.stringContaining('more than 1 rows') },
      { kind: 'state', state: 'ended' },
    ]);
    expect(sends(both.effects).filter(({ type }) => type === 'unsubscribe')).toEqual([]);
    const rest = run([rows(true)], both.state);
    expect(deliveries(rest.effects, 2)).toMatchObject([{ code: 'TOO_MANY_ROWS' }, { state: 'ended' }]);
    expect(sends(rest.effects)).toEqual([{ type: 'unsubscribe', id: 2, ch: 'a' }]);
    expect(run([rows(false), frame({ type: 'ok', id: 2 })], rest.state).state.groups.size).toBe(0);
  });

  test('a subscription from another position is requested again when the one with too many rows ends', () => {
    const { state, effects } = run([
      bounded(1, 1),
      ...requested.slice(1),
      ok(1),
      subscribe(2, false, 'e1.3'),
      rows(true),
      rows(true),
    ]);
    expect(sends(effects).at(-1)).toEqual({ type: 'unsubscribe', id: 2, ch: 'a' });
    const next = run([frame({ type: 'ok', id: 2 })], state);
    expect(sends(next.effects).at(-1)).toEqual({ type: 'subscribe', id: 3, table: 'items', from: 'e1.3' });
  });
});

describe('sharing', () => {
  const subscribes = (effects: readonly Effect[]) => sends(effects).filter(({ type }) => type === 'subscribe');

  test('two subscriptions that begin together are one on the server', () => {
    const { effects } = run([subscribe(1), subscribe(2), ...isLive.slice(1)]);
    expect(subscribes(effects)).toHaveLength(1);
    expect(deliveries(effects, 2)).toEqual(deliveries(effects, 1));
  });

  test('subscriptions with equivalent filters are one', () => {
    const where = [
      { a: 1, b: { is: null } },
      { b: null, a: { eq: 1 } },
    ] as const;
    const same = where.map(
      (where, i): Event => ({
        type: 'subscribe',
        member: i,
        query: { table: 't', where },
        from: null,
        snapshot: true,
      }),
    );
    expect(run(same).state.groups.size).toBe(1);
  });

  test('subscriptions that only the server knows to be equal become one', () => {
    const other: Event = {
      type: 'subscribe',
      member: 2,
      query: { table: 'items', columns: ['id'] },
      from: null,
      snapshot: false,
    };
    const refused = { type: 'error', id: 2, ch: 'a', code: 'ALREADY_SUBSCRIBED', message: '', retry: false } as const;
    const { state, effects } = run([...isLive, other, frame(refused)]);
    expect(state.groups.size).toBe(1);
    expect(deliveries(effects, 2).at(-1)).toEqual({ kind: 'state', state: 'live' });
  });

  test('a subscription that begins now joins a live one at its position', () => {
    const { effects } = run([...isLive, subscribe(2, false)]);
    expect(subscribes(effects)).toHaveLength(1);
    expect(deliveries(effects, 2)).toEqual([
      { kind: 'position', pos: 'e1.5' },
      { kind: 'state', state: 'live' },
    ]);
  });

  test('a later subscription gets its rows, and the earlier one misses no change and gets none twice', () => {
    const first = run([...isLive, change('e1.6'), subscribe(2)]);
    expect(sends(first.effects).at(-1)).toEqual({ type: 'unsubscribe', id: 2, ch: 'a' });
    const second = run([change('e1.7'), frame({ type: 'ok', id: 2 })], first.state); // 7 arrives meanwhile, and will come again
    expect(sends(second.effects)).toEqual([{ type: 'subscribe', id: 3, table: 'items', snapshot: true }]);
    const third = run([ok(3), rows(false), change('e1.8'), live('e1.8')], second.state);
    expect(deliveries(third.effects, 1)).toEqual([]);
    expect(deliveries(third.effects, 2).map(({ kind }) => kind)).toEqual(['snapshot', 'change']);
    expect(sends(third.effects)).toEqual([{ type: 'unsubscribe', id: 4, ch: 'a' }]);
    const fourth = run(
      [frame({ type: 'ok', id: 4 }), ok(5), change('e1.7'), change('e1.8'), live('e1.8')],
      third.state,
    );
    expect(sends(fourth.effects)).toEqual([{ type: 'subscribe', id: 5, table: 'items', from: 'e1.6', snapshot: true }]);
    const positions = deliveries(fourth.effects, 1).flatMap((it) => (it.kind === 'change' ? [it.change.pos] : []));
    expect(positions).toEqual(['e1.7', 'e1.8']);
    expect(deliveries(fourth.effects, 2)).toEqual([{ kind: 'state', state: 'live' }]);
  });

  test('a resync goes to the subscriptions whose changes are lost', () => {
    const joined = run([subscribe(1, false, 'e1.2'), subscribe(2, false, 'e1.9'), ...isLive.slice(1, 5), ok(1)]);
    const { effects, state } = run([frame({ type: 'resync', ch: 'a', reason: 'retention' })], joined.state);
    expect(deliveries(effects, 1)).toEqual([{ kind: 'resync', reason: 'retention' }]);
    expect(deliveries(effects, 2)).toEqual([]);
    const next = run([frame({ type: 'ok', id: 2 })], state);
    expect(sends(next.effects)).toEqual([{ type: 'subscribe', id: 3, table: 'items', from: 'e1.9' }]);
  });
});
