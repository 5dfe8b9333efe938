// The SDK's state machine: every state with every event, and the rules of opening, reconnecting,
// liveness and requests.

import { describe, expect, test } from 'vitest';
import { limits } from '#client/state/limits.ts';
import { reduce } from '#client/state/machine.ts';
import { type Effect, type Event, initialState, type State } from '#client/state/model.ts';
import type { ServerFrame } from '#shared/wire.ts';
import {
  catchingUp,
  change,
  close,
  connecting,
  deliveries,
  dialing,
  frame,
  freeze,
  isLive,
  live,
  ok,
  opening,
  reading,
  requested,
  rows,
  run,
  sends,
  subscribe,
  timer,
  welcome,
  world,
} from '../support/truth/machine.ts';

const states: Record<string, Event[]> = {
  idle: [subscribe(1)],
  'connecting, token': connecting,
  'connecting, socket': dialing,
  opening,
  'open, requested': requested,
  'open, rows': reading,
  'open, catching up': catchingUp,
  'open, live': isLive,
  'open, ending': [...isLive, { type: 'unsubscribe', member: 1 }, subscribe(1)],
  'open, retrying': [...requested, frame({ type: 'error', id: 1, code: 'UNAVAILABLE', message: '', retry: true })],
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
  'socket-close 4401': close(4401),
  'socket-close 4400': close(4400),
  'socket-close 4499': close(4499),
  'socket-close 1009': close(1009),
  'socket-close of an earlier socket': { ...close(4400), socket: 99 } as Event,
  'timer reconnect': { type: 'timer', name: 'reconnect' },
  'timer connect': { type: 'timer', name: 'connect' },
  'timer renew': { type: 'timer', name: 'renew' },
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
  'unsubscribe an unknown member': { type: 'unsubscribe', member: 77 },
  close: { type: 'close' },
  welcome,
  ok: ok(1),
  'ok of the unsubscribe': frame({ type: 'ok', id: 2 }),
  'ok of an unknown request': ok(88),
  'rows, more': rows(true),
  'rows, last': rows(false),
  live: live(),
  change: change('e1.6'),
  'change of an unknown channel': frame({
    ...(change('e1.6') as { frame: ServerFrame }).frame,
    ch: 'z',
  } as ServerFrame),
  pos: frame({ type: 'pos', pos: 'e1.9' }),
  resync: frame({ type: 'resync', ch: 'a', reason: 'retention' }),
  drain: frame({ type: 'drain', after_ms: 10 }),
  pong: frame({ type: 'pong' }),
  'error of a request': frame({ type: 'error', id: 1, code: 'UNKNOWN_TABLE', message: 'no', retry: false }),
  'error of a channel': frame({ type: 'error', ch: 'a', code: 'UNAVAILABLE', message: 'no', retry: true }),
  'error of neither': frame({ type: 'error', code: 'MALFORMED', message: 'no', retry: false }),
  'a frame of a later version': frame({ type: 'later' } as unknown as ServerFrame),
};

const hasSocket = (status: string) => status === 'connecting' || status === 'opening' || status === 'open';

/** The status after the event. */
function expected(stateName: string, eventName: string): string {
  const status = stateName.split(',')[0]!;
  if (status === 'closed') return 'closed';
  if (eventName === 'close') return 'closed';
  // another token is asked for, once
  if (eventName === 'socket-close 4401' && hasSocket(status)) return 'waiting';
  if (/^socket-close (44|1009)/.test(eventName) && hasSocket(status)) return 'closed';
  if (/^socket-close \d/.test(eventName) && hasSocket(status)) return 'waiting';
  if (eventName === 'start' && status === 'idle') return 'connecting';
  if (eventName === 'token-failed' && stateName === 'connecting, token') return 'waiting';
  if (eventName === 'socket-open' && stateName === 'connecting, socket') return 'opening';
  if (eventName === 'welcome' && status === 'opening') return 'open';
  if (eventName === 'timer connect' && (status === 'connecting' || status === 'opening')) return 'waiting';
  if ((eventName === 'timer reconnect' || eventName === 'wake') && status === 'waiting') return 'connecting';
  if (eventName === 'timer answer' && (stateName === 'opening' || stateName === 'open, requested')) return 'waiting';
  // a change or live before the last of the rows would corrupt them
  if (stateName === 'open, rows' && (eventName === 'change' || eventName === 'live')) return 'waiting';
  return status;
}

describe.each(Object.keys(states))('%s', (stateName) => {
  const { state } = run(states[stateName]!);

  test.each(Object.keys(events))('the state follows the table on %s', (eventName) => {
    const once = reduce(freeze(state), events[eventName]!, world);
    expect(once.state.link.status).toBe(expected(stateName, eventName));
    expect(reduce(state, events[eventName]!, world)).toEqual(once);
    const sent = once.effects.filter(({ type }) => type === 'send');
    if (sent.length > 0) expect(['opening', 'open']).toContain(once.state.link.status);
  });
});

describe('opening', () => {
  test('an opening connection sends hello with the token, and subscribes without waiting for the welcome', () => {
    expect(sends(run(opening).effects)).toEqual([
      { type: 'hello', token: 'secret' },
      { type: 'subscribe', id: 1, table: 'items', snapshot: true },
    ]);
  });

  test('an opening connection is given up after 10 s', () => {
    expect(timer(run(connecting).effects, 'connect')).toMatchObject({ ms: limits.connectMs });
  });

  test('each connection gets a token first', () => {
    const { effects } = run([...isLive, close(1006), { type: 'timer', name: 'reconnect' }]);
    expect(effects.filter(({ type }) => type === 'get-token')).toHaveLength(2);
  });
});

describe('the next connection', () => {
  const wait = (state: State, now: number, random: number) => {
    const { effects } = reduce(state, close(1006), { now, random });
    return timer(effects, 'reconnect')!.ms;
  };

  test('the next connection follows after 0.5 to 20 s, with full jitter, later each time', () => {
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

  test('the next connection follows as soon as at first once one was stable for 30 s', () => {
    const { state } = run(isLive);
    const failed = { ...state, attempts: 6 };
    expect(wait(failed, 30_999, 0.999_999)).toBe(20_000);
    expect(wait(failed, 31_000, 0.999_999)).toBe(1_000);
  });

  test('the next connection follows a drain exactly when the server said', () => {
    const { state } = run([...isLive, frame({ type: 'drain', after_ms: 4_200 })]);
    expect(wait(state, 1_200, 0.5)).toBe(4_000);
    // the close may arrive late
    expect(wait(state, 1_000 + 4_200 + 3_000, 0.5)).toBe(0);
  });

  test('the next connection follows a cancelled drain with jitter', () => {
    const { state } = run([...isLive, frame({ type: 'drain', after_ms: 4_200 })]);
    const [low, high] = [wait(state, 20_000, 0), wait(state, 20_000, 0.999_999)];
    expect([low, high]).toEqual([limits.minWaitMs, limits.minWaitMs * 2]);
  });

  test('the next connection resumes from the last position', () => {
    const again: Event[] = [
      close(1006),
      { type: 'timer', name: 'reconnect' },
      { type: 'token', socket: 2 },
      { type: 'socket-open', socket: 2 },
    ];
    const { effects } = run([...isLive, change('e1.8'), ...again]);
    expect(sends(effects).at(-1)).toEqual({ type: 'subscribe', id: 2, table: 'items', from: 'e1.8', snapshot: true });
    const { effects: withoutPosition } = run([...catchingUp, ...again]);
    expect(sends(withoutPosition).at(-1)).toEqual({ type: 'subscribe', id: 2, table: 'items', snapshot: true });
  });

  test('no connection follows a final close code, which subscriptions get as an error', () => {
    const { state, effects } = run([...isLive, close(4400)]);
    expect(deliveries(effects, 1).slice(-2)).toEqual([
      { kind: 'error', code: 'CLOSED', message: 'the server closed the connection for good with 4400: so' },
      { kind: 'state', state: 'ended' },
    ]);
    expect(deliveries(run([subscribe(5)], state).effects, 5)).toMatchObject([{ code: 'CLOSED' }, { state: 'ended' }]);
  });
});

describe('silence', () => {
  test('silence is broken by a ping after ping_ms, and ends the connection after 2.5 times that', () => {
    const opened = run(isLive, initialState, 0);
    expect(timer(opened.effects, 'liveness')).toMatchObject({ ms: 20_000 });
    const pinged = run([{ type: 'timer', name: 'liveness' }], opened.state, 20_000);
    expect(sends(pinged.effects)).toEqual([{ type: 'ping' }]);
    expect(timer(pinged.effects, 'liveness')).toMatchObject({ ms: 30_000 });
    const ponged = run([frame({ type: 'pong' }), { type: 'timer', name: 'liveness' }], pinged.state, 49_999);
    expect(ponged.state.link.status).toBe('open');
    expect(run([{ type: 'timer', name: 'liveness' }], pinged.state, 50_000).state.link.status).toBe('waiting');
  });

  test('silence of a machine that slept is followed by a ping before it counts', () => {
    const opened = run(isLive, initialState, 0);
    const woken = run([{ type: 'timer', name: 'liveness' }], opened.state, 3_600_000);
    expect(sends(woken.effects)).toEqual([{ type: 'ping' }]);
    expect(timer(woken.effects, 'liveness')).toMatchObject({ ms: limits.probeMs });
  });
});

describe('a request', () => {
  const cleared = (effects: readonly Effect[]) =>
    effects.flatMap((effect) => (effect.type === 'clear-timer' ? [effect.name] : []));

  test('a request that is not answered in time ends the connection, and is repeated on the next one', () => {
    const opened = run(requested);
    expect(timer(opened.effects, 'answer 1')).toMatchObject({ ms: limits.answerMs });
    // the server is alive, but of no use
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

  test('a request has as long as `answerTimeoutMs`', () => {
    const { effects } = run(requested, { ...initialState, answerMs: 5 });
    expect(timer(effects, 'answer 1')).toMatchObject({ ms: 5 });
  });

  test('a request has no deadline once it is answered, or its connection is gone', () => {
    const refusal = frame({ type: 'error', id: 1, code: 'UNKNOWN_TABLE', message: 'no', retry: false });
    for (const end of [ok(1), refusal, close(1006), { type: 'close' } as Event])
      expect(cleared(run([...requested, end]).effects)).toContain('answer 1');
  });
});
