// The SDK where a server checks tokens: whom it is served as, which channel it names when it resumes, and what a
// change of its rights does to its subscriptions.

import { describe, expect, test } from 'vitest';
import { LiveStore } from '#client/live/query.ts';
import { limits } from '#client/state/limits.ts';
import type { Effect, Event, State } from '#client/state/model.ts';
import type { ServerFrame } from '#shared/wire.ts';
import {
  change,
  close,
  deliveries,
  frame,
  live,
  ok,
  opening,
  rows,
  run,
  sends,
  subscribe,
} from '../support/truth/machine.ts';

const welcomed = (content: object): Event =>
  frame({ type: 'welcome', node: 'gateway-1', ping_ms: 20_000, pos: 'e1.5', ...content });
const asAda = welcomed({ user: 'ada', role: 'editor', expires_in_s: 100 });
const begun = [ok(1), rows(false), live()];
const isAda = [...opening, asAda, ...begun];
const ofSocket = (socket: number, event: Event): Event => ({ ...event, socket }) as Event;
const dialed = (socket: number): Event[] =>
  [{ type: 'token', token: 'secret' }, { type: 'socket-open' }].map((event) => ofSocket(socket, event as Event));
const returned: Event[] = [close(1006), { type: 'timer', name: 'reconnect' }, ...dialed(2)];
const subscribes = (effects: readonly Effect[]) => sends(effects).filter(({ type }) => type === 'subscribe');

describe('the viewer of an open connection', () => {
  test.each<[string, ServerFrame | Event, unknown]>([
    ['a token', asAda, { user: 'ada', role: 'editor', expiresAt: 101_000 }],
    ['no token', welcomed({ role: 'anonymous' }), { user: null, role: 'anonymous', expiresAt: null }],
    ['a server that checks no tokens', welcomed({}), null],
  ])('%s', (_name, event, viewer) => {
    expect(run([...opening, event as Event]).state.link).toMatchObject({ status: 'open', viewer });
  });

  test('becomes the one of a renewed token, and the application is told', () => {
    const answer = frame({ type: 'ok', id: 2, user: 'ada', role: 'admin', expires_in_s: 60 });
    const { state, effects } = run([answer], run(isAda).state, 50_000);
    const viewer = { user: 'ada', role: 'admin', expiresAt: 110_000 };
    expect(state.link).toMatchObject({ viewer });
    expect(effects).toContainEqual({ type: 'notify', link: expect.objectContaining({ viewer }) });
  });
});

describe('a subscription that resumes', () => {
  test('names the channel that it had, where the server checks tokens', () => {
    const { effects } = run(returned, run([...isAda, change('e1.6')]).state);
    expect(subscribes(effects)).toEqual([
      { type: 'subscribe', id: 2, table: 'items', from: 'e1.6', ch: 'a', snapshot: true },
    ]);
  });

  test('names none where the server checks none: an earlier gateway does not expect it', () => {
    const { effects } = run(returned, run([...opening, welcomed({}), ...begun]).state);
    expect(subscribes(effects)).toEqual([{ type: 'subscribe', id: 2, table: 'items', from: 'e1.5', snapshot: true }]);
  });

  test('names none with a position of the application, until the server has sent it a position', () => {
    const fromStored = [subscribe(1, false, 'e1.3'), ...opening.slice(1), asAda];
    expect(subscribes(run(fromStored).effects)[0]).not.toHaveProperty('ch');
    const early = run(returned, run([...fromStored, ok(1)]).state);
    expect(subscribes(early.effects)).toEqual([{ type: 'subscribe', id: 2, table: 'items', from: 'e1.3' }]);
    const late = run(returned, run([...fromStored, ok(1), change('e1.4')]).state);
    expect(subscribes(late.effects)).toEqual([{ type: 'subscribe', id: 2, table: 'items', from: 'e1.4', ch: 'a' }]);
  });

  test('shares a request only with members that had the same channel', () => {
    const other = subscribe(2, false, 'e1.2');
    const waiting = run([...isAda, close(1006), other]).state;
    const first = run([{ type: 'timer', name: 'reconnect' }, ...dialed(2)], waiting);
    expect(subscribes(first.effects)).toMatchObject([{ from: 'e1.5', ch: 'a' }]);
    // when the first of them is live, the stream begins again for the one that was left
    const on2 = [asAda, ok(2), live('e1.7')].map((event) => ofSocket(2, event));
    const parked = run(on2, first.state);
    expect(sends(parked.effects)).toMatchObject([{ type: 'unsubscribe', ch: 'a' }]);
    const second = run([ofSocket(2, frame({ type: 'ok', id: 3 }))], parked.state);
    expect(subscribes(second.effects)).toEqual([{ type: 'subscribe', id: 4, table: 'items', from: 'e1.2' }]);
    // from then on, both have the same channel
    const both = run(
      [ok(4), live('e1.7'), frame({ type: 'ok', id: 5 })].map((event) => ofSocket(2, event)),
      second.state,
    );
    expect(subscribes(both.effects)).toMatchObject([{ from: 'e1.7', ch: 'a' }]);
    const done = run(
      [ok(6), live('e1.7')].map((event) => ofSocket(2, event)),
      both.state,
    );
    for (const member of [1, 2])
      expect(deliveries(done.effects, member)).toContainEqual({ kind: 'state', state: 'live' });
  });
});

describe('when the rights change', () => {
  const resync = frame({ type: 'resync', ch: 'a', reason: 'access', key: ['id'] });
  const page = (ids: number[], more = false) =>
    frame({ type: 'rows', ch: 'a', rows: ids.map((id) => ({ id, tags: ['a', { b: id }] })), more });

  /** A live query, and the rows that its watcher saw at each call. */
  function watched() {
    const store = new LiveStore({ key: ['id'], maxRows: 100 });
    const seen: string[] = [];
    store.watch(() => seen.push(`${store.state}: ${[...store.rows.keys()].join(' ')}`));
    let state: State = run([]).state;
    const play = (events: readonly Event[]) => {
      const step = run(events, state);
      state = step.state;
      for (const delivery of deliveries(step.effects, 1)) store.receive(delivery);
    };
    return { store, seen, play };
  }

  test('a live query keeps its rows until the new ones are complete, and then changes once', () => {
    const { store, seen, play } = watched();
    play([...opening, asAda, ok(1), page([1, 2, 3]), live()]);
    const [first, , third] = [...store.rows.values()];
    seen.length = 0;
    play([resync, page([4, 3], true), page([1]), live('e1.9')]);
    expect(seen).toEqual(['catching-up: 1 2 3', 'catching-up: 1 3 4', 'live: 1 3 4']);
    // rows that stay are the same objects, so that an application does not draw them again
    expect([store.rows.get(1), store.rows.get(3)]).toEqual([first, third]);
    expect(store.rows.get(1)).toBe(first);
    expect(store.rows.get(3)).toBe(third);
  });

  test.each<[string, unknown, unknown, boolean]>([
    ['equal values', { id: 1, at: [1, null] }, { at: [1, null], id: 1 }, true],
    ['another value', { id: 1, at: [1, 2] }, { id: 1, at: [1, 3] }, false],
    ['a column less', { id: 1, at: null }, { id: 1 }, false],
    ['a column more', { id: 1 }, { id: 1, at: null }, false],
    ['another column', { id: 1, at: null }, { id: 1, to: null }, false],
    ['an object for a list', { id: 1, at: { 0: 1 } }, { id: 1, at: [1] }, false],
    ['a bigint', { id: 1, at: 9007199254740993n }, { id: 1, at: 9007199254740993n }, true],
    ['another bigint', { id: 1, at: 9007199254740993n }, { id: 1, at: 9007199254740992n }, false],
    ['a text for a number', { id: 1, at: '1' }, { id: 1, at: 1 }, false],
    ['a value that is nested very deeply', { id: 1, at: nested(5_000) }, { id: 1, at: nested(5_000) }, false],
  ])('a row that is read again with %s stays the same object or is replaced', (_name, before, after, isKept) => {
    const { store, play } = watched();
    const read = (row: unknown) => frame({ type: 'rows', ch: 'a', rows: [row as { id: number }], more: false });
    play([...opening, asAda, ok(1), read(before), live()]);
    play([resync, read(after), live('e1.9')]);
    expect(store.rows.get(1)).toBe(isKept ? before : after);
  });

  test('a row that has become too large to be sent is not taken for a small one', () => {
    const { store, play } = watched();
    play([...opening, asAda, ok(1), frame({ type: 'rows', ch: 'a', rows: [{ id: 1 }], more: false }), live()]);
    const whole = store.rows.get(1);
    play([resync, frame({ type: 'rows', ch: 'a', rows: [], truncated: [1], more: false })]);
    expect(store.rows.get(1)).toEqual({ id: 1 });
    expect(store.rows.get(1)).not.toBe(whole);
  });

  test.each(['UNKNOWN_TABLE', 'FORBIDDEN'] as const)(
    '%s ends the subscription with an error, and no other one',
    (code) => {
      const other: Event = { type: 'subscribe', member: 2, query: { table: 'notes' }, from: null, snapshot: false };
      const both = run([
        ...isAda,
        other,
        frame({ type: 'ok', id: 2, ch: 'b' }),
        frame({ type: 'live', ch: 'b', pos: 'e1.5' }),
      ]);
      const message = 'there is no table "items"';
      const ended = run([frame({ type: 'error', ch: 'a', code, message, retry: false })], both.state);
      expect(deliveries(ended.effects, 1)).toEqual([
        { kind: 'error', code, message },
        { kind: 'state', state: 'ended' },
      ]);
      expect(deliveries(ended.effects, 2)).toEqual([]);
      expect(ended.state.link.status).toBe('open');
      expect([...ended.state.groups.values()].map(({ query }) => query.table)).toEqual(['notes']);
      // it asks for nothing: the same request would be refused again
      expect(sends(ended.effects)).toEqual([]);
    },
  );
});

describe('a token', () => {
  const waiting = (failures: number) => {
    const failure = (socket: number): Event[] => [
      { type: 'timer', name: 'reconnect' },
      { type: 'socket-close', socket, code: 1006, reason: '' },
    ];
    const fail = Array.from({ length: failures }, (_, at) => failure(at + 2)).flat();
    return run([...isAda, close(1006), ...fail]).state;
  };
  const hello = (socket: number): Event[] => [{ type: 'timer', name: 'reconnect' }, ...dialed(socket)];
  const refused = (socket: number) => ofSocket(socket, close(4401));

  test.each([0, 5])(
    'that expired while the network was away (%i failed attempts) is requested once more',
    (failures) => {
      const first = failures + 2;
      const once = run([...hello(first), refused(first)], waiting(failures));
      expect(once.state.link.status).toBe('waiting');
      expect(once.effects.some(({ type }) => type === 'report')).toBe(failures === 0);
      const twice = run([...hello(first + 1), refused(first + 1)], once.state);
      expect(twice.state.link).toMatchObject({ status: 'closed', code: 4401 });
      expect(deliveries(twice.effects, 1)).toContainEqual(
        expect.objectContaining({ kind: 'error', code: 'UNAUTHORIZED' }),
      );
    },
  );

  test('that is accepted in between starts the count again', () => {
    const once = run([...hello(2), refused(2), ...hello(3), ofSocket(3, asAda)], waiting(0));
    expect(once.state.link.status).toBe('open');
    expect(run([refused(3), ...hello(4), refused(4)], once.state).state.link.status).toBe('waiting');
  });

  test('that was requested before the page was frozen is not sent', () => {
    const dialing = run([{ type: 'timer', name: 'reconnect' }, dialed(2)[0]!], waiting(0)).state;
    const soon = run([dialed(2)[1]!], dialing, 1_000 + limits.connectMs);
    expect(sends(soon.effects)[0]).toEqual({ type: 'hello', token: 'secret' });
    const late = run([dialed(2)[1]!], dialing, 1_001 + limits.connectMs);
    expect(sends(late.effects)).toEqual([]);
    expect(late.state.link.status).toBe('waiting');
    expect(run([{ type: 'wake' }], late.state).effects).toContainEqual({ type: 'get-token', socket: 3 });
  });

  test('of another user closes the client, and its subscriptions say why', () => {
    const { state, effects } = run([close(4403)], run(isAda).state);
    expect(state.link).toMatchObject({ status: 'closed', code: 4403 });
    expect(deliveries(effects, 1)).toContainEqual(expect.objectContaining({ kind: 'error', code: 'FORBIDDEN' }));
    expect(run([{ type: 'wake' }, { type: 'start' }], state).effects).toEqual([]);
  });
});

function nested(depth: number): unknown {
  let value: unknown = 1;
  for (let i = 0; i < depth; i++) value = [value];
  return value;
}
