// The SDK's brain, where several subscriptions are one on the wire: how they become one, what each of them gets, and how they part
// where one wants rows, lost changes, or takes no more rows.

import { describe, expect, test } from 'vitest';
import type { Effect, Event } from '#client/state/model.ts';
import {
  asked,
  change,
  deliveries,
  frame,
  isLive,
  live,
  ok,
  rows,
  run,
  sends,
  subject,
  subscribe,
} from '../support/truth/machine.ts';

describe('more rows than a subscription takes', () => {
  const bounded = (member: number, maxRows: number): Event => ({
    type: 'subscribe',
    member,
    subject,
    from: null,
    snapshot: true,
    maxRows,
  });

  test('end it before they are all there, and no other', () => {
    const both = run([bounded(1, 1), bounded(2, 2), ...asked.slice(1), ok(1), rows(true), rows(true)]);
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

  test('leave what began elsewhere to begin again', () => {
    const { state, effects } = run([
      bounded(1, 1),
      ...asked.slice(1),
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

  test('two that begin together have one server subscription', () => {
    const { effects } = run([subscribe(1), subscribe(2), ...isLive.slice(1)]);
    expect(subscribes(effects)).toHaveLength(1);
    expect(deliveries(effects, 2)).toEqual(deliveries(effects, 1));
  });

  test('filters that mean the same are the same', () => {
    const where = [
      { a: 1, b: { is: null } },
      { b: null, a: { eq: 1 } },
    ] as const;
    const same = where.map(
      (where, i): Event => ({
        type: 'subscribe',
        member: i,
        subject: { table: 't', where },
        from: null,
        snapshot: true,
      }),
    );
    expect(run(same).state.groups.size).toBe(1);
  });

  test('what the server alone knows to be the same becomes one', () => {
    const other: Event = {
      type: 'subscribe',
      member: 2,
      subject: { table: 'items', columns: ['id'] },
      from: null,
      snapshot: false,
    };
    const refused = { type: 'error', id: 2, ch: 'a', code: 'ALREADY_SUBSCRIBED', message: '', retry: false } as const;
    const { state, effects } = run([...isLive, other, frame(refused)]);
    expect(state.groups.size).toBe(1);
    expect(deliveries(effects, 2).at(-1)).toEqual({ kind: 'state', state: 'live' });
  });

  test('one that begins now joins a live one at its position', () => {
    const { effects } = run([...isLive, subscribe(2, false)]);
    expect(subscribes(effects)).toHaveLength(1);
    expect(deliveries(effects, 2)).toEqual([
      { kind: 'position', pos: 'e1.5' },
      { kind: 'state', state: 'live' },
    ]);
  });

  test('one that wants rows later gets them, and the other gets no change twice and none too few', () => {
    const first = run([...isLive, change('e1.6'), subscribe(2)]);
    expect(sends(first.effects).at(-1)).toEqual({ type: 'unsubscribe', id: 2, ch: 'a' });
    const second = run([change('e1.7'), frame({ type: 'ok', id: 2 })], first.state); // 7 comes on the way: it will come again
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

  test('a resync is for those whose changes are lost', () => {
    const joined = run([subscribe(1, false, 'e1.2'), subscribe(2, false, 'e1.9'), ...isLive.slice(1, 5), ok(1)]);
    const { effects, state } = run([frame({ type: 'resync', ch: 'a', reason: 'retention' })], joined.state);
    expect(deliveries(effects, 1)).toEqual([{ kind: 'resync', reason: 'retention' }]);
    expect(deliveries(effects, 2)).toEqual([]);
    const next = run([frame({ type: 'ok', id: 2 })], state);
    expect(sends(next.effects)).toEqual([{ type: 'subscribe', id: 3, table: 'items', from: 'e1.9' }]);
  });
});
