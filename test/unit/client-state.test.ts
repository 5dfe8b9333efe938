// The SDK's brain: every state with every event, the rules of reconnecting and liveness, and a model of the whole protocol.

import * as fc from 'fast-check';
import { describe, expect, test } from 'vitest';
import { type Effect, type Event, initialState, limits, type State } from '../../client/connection-model.ts';
import { reduce } from '../../client/connection-state.ts';
import type { ServerFrame } from '../../shared/wire.ts';
import { type Action, actions, RelayModel } from '../support/relay-model.ts';

const world = { now: 1_000, random: 0.5 };
const subject = { table: 'items' };

function run(
  events: readonly Event[],
  from: State = initialState,
  now = world.now,
): { state: State; effects: Effect[] } {
  let state = from;
  const all: Effect[] = [];
  for (const event of events) {
    const step = reduce(freeze(state), event, { ...world, now });
    state = step.state;
    all.push(...step.effects);
  }
  return { state, effects: all };
}

function freeze<T>(value: T): T {
  if (value === null || typeof value !== 'object' || Object.isFrozen(value)) return value;
  if (value instanceof Map) for (const member of value.values()) freeze(member);
  else for (const member of Object.values(value)) freeze(member);
  return Object.freeze(value);
}

const frame = (content: ServerFrame): Event => ({ type: 'frame', socket: 1, frame: content });
const subscribe = (member: number, snapshot = true, from: string | null = null): Event => {
  return { type: 'subscribe', member, subject, from, snapshot };
};
const welcome = frame({ type: 'welcome', node: 'gateway-1', ping_ms: 20_000, pos: 'e1.5' });
const ok = (id: number) => frame({ type: 'ok', id, ch: 'a', key: ['id'] });
const rows = (more: boolean) => frame({ type: 'rows', ch: 'a', rows: [{ id: 1 }], more });
const live = (pos = 'e1.5') => frame({ type: 'live', ch: 'a', pos });
const change = (pos: string) =>
  frame({
    type: 'change',
    ch: 'a',
    effect: 'add',
    table: 'items',
    action: 'INSERT',
    id: 7,
    data: { id: 7 },
    pos,
    tx: '9',
    last: true,
  });
const close = (code: number): Event => ({ type: 'socket-close', socket: 1, code, reason: 'so' });

const connecting: Event[] = [subscribe(1), { type: 'start' }];
const dialing: Event[] = [...connecting, { type: 'token', socket: 1, token: 'secret' }];
const opening: Event[] = [...dialing, { type: 'socket-open', socket: 1 }];
const asked = [...opening, welcome];
const reading = [...asked, ok(1), rows(true)];
const behind = [...reading, rows(false)];
const isLive = [...behind, live()];

const states: Record<string, Event[]> = {
  idle: [subscribe(1)],
  'connecting, token': connecting,
  'connecting, socket': dialing,
  opening,
  'open, asked': asked,
  'open, rows': reading,
  'open, behind': behind,
  'open, live': isLive,
  'open, leaving': [...isLive, { type: 'unsubscribe', member: 1 }, subscribe(1)],
  'open, pausing': [...asked, frame({ type: 'error', id: 1, code: 'UNAVAILABLE', message: '', retry: true })],
  'open, draining': [...isLive, frame({ type: 'drain', after_ms: 4_200 })],
  'open, probing': [...isLive, { type: 'wake' }],
  waiting: [...isLive, close(1006)],
  closed: [...isLive, { type: 'close' }],
};

const events: Record<string, Event> = {
  start: { type: 'start' },
  token: { type: 'token', socket: 1 },
  'token-failed': { type: 'token-failed', socket: 1, message: 'no' },
  'socket-open': { type: 'socket-open', socket: 1 },
  'socket-close 1006': close(1006),
  'socket-close 1012': close(1012),
  'socket-close 4500': close(4500),
  'socket-close 4400': close(4400),
  'socket-close 4499': close(4499),
  'socket-close 1009': close(1009),
  'socket-close, another one': { ...close(4400), socket: 99 } as Event,
  'timer reconnect': { type: 'timer', name: 'reconnect' },
  'timer connect': { type: 'timer', name: 'connect' },
  'timer liveness': { type: 'timer', name: 'liveness' },
  'timer retry': { type: 'timer', name: 'retry ["items",{},null]' },
  'timer answer': { type: 'timer', name: 'answer 1' },
  'timer answer of the unsubscribe': { type: 'timer', name: 'answer 2' },
  'timer unknown': { type: 'timer', name: 'unknown' },
  wake: { type: 'wake' },
  'subscribe rows': subscribe(2),
  'subscribe now': subscribe(2, false),
  'subscribe from': subscribe(2, true, 'e1.2'),
  unsubscribe: { type: 'unsubscribe', member: 1 },
  'unsubscribe nobody': { type: 'unsubscribe', member: 77 },
  close: { type: 'close' },
  welcome,
  ok: ok(1),
  'ok of the unsubscribe': frame({ type: 'ok', id: 2 }),
  'ok of nothing': ok(88),
  'rows, more': rows(true),
  'rows, last': rows(false),
  live: live(),
  change: change('e1.6'),
  'change of nothing': frame({ ...(change('e1.6') as { frame: ServerFrame }).frame, ch: 'z' } as ServerFrame),
  pos: frame({ type: 'pos', pos: 'e1.9' }),
  resync: frame({ type: 'resync', ch: 'a', reason: 'retention' }),
  drain: frame({ type: 'drain', after_ms: 10 }),
  pong: frame({ type: 'pong' }),
  'error of a request': frame({ type: 'error', id: 1, code: 'UNKNOWN_TABLE', message: 'no', retry: false }),
  'error of a channel': frame({ type: 'error', ch: 'a', code: 'UNAVAILABLE', message: 'no', retry: true }),
  'error of nothing': frame({ type: 'error', code: 'MALFORMED', message: 'no', retry: false }),
  'a frame of later': frame({ type: 'later' } as unknown as ServerFrame),
};

const hasSocket = (status: string) => status === 'connecting' || status === 'opening' || status === 'open';

/** The status that follows, where it is another one. */
function expected(stateName: string, eventName: string): string {
  const status = stateName.split(',')[0]!;
  if (status === 'closed') return 'closed';
  if (eventName === 'close') return 'closed';
  if (/^socket-close (44|1009)/.test(eventName) && hasSocket(status)) return 'closed';
  if (/^socket-close \d/.test(eventName) && hasSocket(status)) return 'waiting';
  if (eventName === 'start' && status === 'idle') return 'connecting';
  if (eventName === 'token-failed' && stateName === 'connecting, token') return 'waiting';
  if (eventName === 'socket-open' && stateName === 'connecting, socket') return 'opening';
  if (eventName === 'welcome' && status === 'opening') return 'open';
  if (eventName === 'timer connect' && (status === 'connecting' || status === 'opening')) return 'waiting';
  if ((eventName === 'timer reconnect' || eventName === 'wake') && status === 'waiting') return 'connecting';
  if (eventName === 'timer answer' && (stateName === 'opening' || stateName === 'open, asked')) return 'waiting';
  // what would corrupt a picture: a change or live within the rows
  if (stateName === 'open, rows' && (eventName === 'change' || eventName === 'live')) return 'waiting';
  return status;
}

describe.each(Object.keys(states))('%s', (stateName) => {
  const { state } = run(states[stateName]!);

  test.each(Object.keys(events))('%s', (eventName) => {
    const once = reduce(freeze(state), events[eventName]!, world);
    expect(once.state.link.status).toBe(expected(stateName, eventName));
    expect(reduce(state, events[eventName]!, world)).toEqual(once);
    const sent = once.effects.filter(({ type }) => type === 'send');
    if (sent.length > 0) expect(['opening', 'open']).toContain(once.state.link.status);
  });
});

const sends = (effects: readonly Effect[]) =>
  effects.flatMap((effect) => (effect.type === 'send' ? [effect.frame] : []));
const timer = (effects: readonly Effect[], name: string) =>
  effects.findLast((effect) => effect.type === 'set-timer' && effect.name === name) as { ms: number } | undefined;
const deliveries = (effects: readonly Effect[], to: number) =>
  effects.flatMap((effect) => (effect.type === 'deliver' && effect.member === to ? [effect.delivery] : []));

describe('opening', () => {
  test('says hello with the token, and subscribes without waiting for the welcome', () => {
    expect(sends(run(opening).effects)).toEqual([
      { type: 'hello', token: 'secret' },
      { type: 'subscribe', id: 1, table: 'items', snapshot: true },
    ]);
  });

  test('gives up what takes too long', () => {
    expect(timer(run(connecting).effects, 'connect')).toMatchObject({ ms: limits.connectMs });
  });

  test('asks for a token before each connection', () => {
    const { effects } = run([...isLive, close(1006), { type: 'timer', name: 'reconnect' }]);
    expect(effects.filter(({ type }) => type === 'get-token')).toHaveLength(2);
  });
});

describe('coming back', () => {
  const wait = (state: State, now: number, random: number) => {
    const { effects } = reduce(state, close(1006), { now, random });
    return timer(effects, 'reconnect')!.ms;
  };

  test('after 0.5 to 20 s, with full jitter, longer each time', () => {
    const { state } = run(isLive);
    for (const [attempts, ceiling] of [
      [0, 1_000],
      [1, 2_000],
      [2, 4_000],
      [3, 8_000],
      [4, 16_000],
      [5, 20_000],
      [50, 20_000],
    ] as const) {
      const failed = { ...state, attempts };
      expect(wait(failed, 1_000, 0)).toBe(500);
      expect(wait(failed, 1_000, 0.999_999)).toBe(ceiling);
    }
  });

  test('begins anew with the waits once a connection was stable for 30 s', () => {
    const { state } = run(isLive);
    const failed = { ...state, attempts: 6 };
    expect(wait(failed, 30_999, 0.999_999)).toBe(20_000);
    expect(wait(failed, 31_000, 0.999_999)).toBe(1_000);
  });

  test('after a drain as late as the server said', () => {
    const { state } = run([...isLive, frame({ type: 'drain', after_ms: 4_200 })]);
    expect(wait(state, 1_200, 0.5)).toBe(4_000);
    // the close may be some time on its way
    expect(wait(state, 1_000 + 4_200 + 3_000, 0.5)).toBe(0);
  });

  test('with jitter after a drain that was called off', () => {
    const { state } = run([...isLive, frame({ type: 'drain', after_ms: 4_200 })]);
    const [low, high] = [wait(state, 20_000, 0), wait(state, 20_000, 0.999_999)];
    expect([low, high]).toEqual([limits.minWaitMs, limits.minWaitMs * 2]);
  });

  test('goes on from the last position', () => {
    const again: Event[] = [
      close(1006),
      { type: 'timer', name: 'reconnect' },
      { type: 'token', socket: 2 },
      { type: 'socket-open', socket: 2 },
    ];
    const { effects } = run([...isLive, change('e1.8'), ...again]);
    expect(sends(effects).at(-1)).toEqual({ type: 'subscribe', id: 2, table: 'items', from: 'e1.8', snapshot: true });
    const { effects: withoutPosition } = run([...behind, ...again]);
    expect(sends(withoutPosition).at(-1)).toEqual({ type: 'subscribe', id: 2, table: 'items', snapshot: true });
  });

  test('ends for good, and says why, with a code that says so', () => {
    const { state, effects } = run([...isLive, close(4400)]);
    expect(deliveries(effects, 1).slice(-2)).toEqual([
      { kind: 'error', code: 'CLOSED', message: 'the server closed the connection with 4400: so' },
      { kind: 'state', state: 'ended' },
    ]);
    expect(deliveries(run([subscribe(5)], state).effects, 5)).toMatchObject([{ code: 'CLOSED' }, { state: 'ended' }]);
  });
});

describe('silence', () => {
  test('is broken by a ping after ping_ms, and ends the connection after 2.5 times that', () => {
    const opened = run(isLive, initialState, 0);
    expect(timer(opened.effects, 'liveness')).toMatchObject({ ms: 20_000 });
    const pinged = run([{ type: 'timer', name: 'liveness' }], opened.state, 20_000);
    expect(sends(pinged.effects)).toEqual([{ type: 'ping' }]);
    expect(timer(pinged.effects, 'liveness')).toMatchObject({ ms: 30_000 });
    const heard = run([frame({ type: 'pong' }), { type: 'timer', name: 'liveness' }], pinged.state, 49_999);
    expect(heard.state.link.status).toBe('open');
    expect(run([{ type: 'timer', name: 'liveness' }], pinged.state, 50_000).state.link.status).toBe('waiting');
  });

  test('of a machine that slept is asked about before it counts', () => {
    const opened = run(isLive, initialState, 0);
    const woken = run([{ type: 'timer', name: 'liveness' }], opened.state, 3_600_000);
    expect(sends(woken.effects)).toEqual([{ type: 'ping' }]);
    expect(timer(woken.effects, 'liveness')).toMatchObject({ ms: limits.probeMs });
  });
});

describe('a request', () => {
  const cleared = (effects: readonly Effect[]) =>
    effects.flatMap((effect) => (effect.type === 'clear-timer' ? [effect.name] : []));

  test('that is not answered in time ends the connection, and is made on the next one', () => {
    const opened = run(asked);
    expect(timer(opened.effects, 'answer 1')).toMatchObject({ ms: limits.answerMs });
    // alive, but of no use
    const late = run([frame({ type: 'pong' }), { type: 'timer', name: 'answer 1' }], opened.state);
    expect(late.state.link.status).toBe('waiting');
    expect(late.effects).toContainEqual({ type: 'report', message: 'a request was not answered within 30000 ms' });
    const again: Event[] = [
      { type: 'timer', name: 'reconnect' },
      { type: 'token', socket: 2 },
      { type: 'socket-open', socket: 2 },
    ];
    expect(sends(run(again, late.state).effects).at(-1)).toMatchObject({ type: 'subscribe', id: 2 });
  });

  test('has as long as the application says', () => {
    const { effects } = run(asked, { ...initialState, answerMs: 5 });
    expect(timer(effects, 'answer 1')).toMatchObject({ ms: 5 });
  });

  test('is waited for no more once it is answered, or its connection is gone', () => {
    const refusal = frame({ type: 'error', id: 1, code: 'UNKNOWN_TABLE', message: 'no', retry: false });
    for (const end of [ok(1), refusal, close(1006), { type: 'close' } as Event])
      expect(cleared(run([...asked, end]).effects)).toContain('answer 1');
  });
});

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

const action: fc.Arbitrary<Action> = fc.tuple(fc.constantFrom(...actions), fc.nat(1_000), fc.nat(1_000));

test('whatever the network does, every picture is what the log says, nothing comes twice and nothing is missed', () => {
  const seen: Record<string, number> = {};
  fc.assert(
    fc.property(fc.array(action, { maxLength: 400, size: 'max' }), (steps) => {
      const model = new RelayModel();
      model.act(['subscribe', 0, 1]);
      for (const step of steps) model.act(step);
      model.settle();
      for (const [kind, count] of Object.entries(model.counts)) seen[kind] = (seen[kind] ?? 0) + count;
    }),
    { numRuns: 2_000 },
  );
  for (const kind of ['snapshot', 'change', 'position', 'resync']) expect(seen[kind]).toBeGreaterThan(1_000);
});
