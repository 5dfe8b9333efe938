// After which close codes the SDK connects again, and how soon it notices that it has to.

import { describe, expect, test } from 'vitest';
import { limits } from '#client/state/limits.ts';
import { reduce } from '#client/state/machine.ts';
import { type Effect, type Event, initialState, type State } from '#client/state/model.ts';
import { isFinal } from '#client/state/reconnect.ts';

test.each([
  [1000, false],
  [1006, false],
  [1009, true],
  [1012, false],
  [4400, true],
  // the token has expired: the application may have another one
  [4401, false],
  [4403, true],
  // a page that was frozen while its socket opened sends hello when it is thawed
  [4408, false],
  [4429, true],
  [4500, false],
  [4508, false],
])('close code %i is final: %s', (code, stays) => {
  expect(isFinal(code, run(opened, 0).state)).toBe(stays);
});

const opened: Event[] = [
  { type: 'start' },
  { type: 'token', socket: 1 },
  { type: 'socket-open', socket: 1 },
  { type: 'frame', socket: 1, frame: { type: 'welcome', node: 'gateway-1', ping_ms: 20_000, pos: 'e1.5' } },
];

function run(events: readonly Event[], now: number, from: State = initialState): { state: State; effects: Effect[] } {
  const effects: Effect[] = [];
  let state = from;
  for (const event of events) {
    const step = reduce(state, event, { now, random: 0 });
    state = step.state;
    effects.push(...step.effects);
  }
  return { state, effects };
}

test('a token that is refused at the hello is asked for once more, then the client is closed', () => {
  const refused = (socket: number): Event[] => [
    { type: 'token', socket, token: 'wrong' },
    { type: 'socket-open', socket },
    { type: 'socket-close', socket, code: 4401, reason: 'the token has expired' },
  ];
  const once = run([{ type: 'start' }, ...refused(1)], 0);
  expect(once.state.link.status).toBe('waiting');
  const twice = run([{ type: 'timer', name: 'reconnect' }, ...refused(2)], 0, once.state);
  expect(twice.state.link).toMatchObject({ status: 'closed', code: 4401 });
  expect(twice.effects).toContainEqual({
    type: 'report',
    code: 'UNAUTHORIZED',
    message: 'the server closed the connection for good with 4401: the token has expired',
  });
});

describe('the token of an open connection', () => {
  const welcome = { type: 'welcome', node: 'gateway-1', ping_ms: 20_000, pos: 'e1.5', expires_in_s: 100 } as const;
  const valid = run([...opened.slice(0, 3), { type: 'frame', socket: 1, frame: welcome }], 0);
  const renewal = (effects: readonly Effect[]) =>
    effects.findLast((effect) => effect.type === 'set-timer' && effect.name === 'renew');
  const renew: Event = { type: 'timer', name: 'renew' };

  test('is renewed at 80 % of its time, each time', () => {
    expect(renewal(valid.effects)).toMatchObject({ ms: 80_000 });
    const asked = run([renew], 80_000, valid.state);
    expect(asked.effects).toContainEqual({ type: 'get-token', socket: 1 });
    const sent = run([{ type: 'token', socket: 1, token: 'next' }], 80_100, asked.state);
    expect(sent.effects).toContainEqual({ type: 'send', frame: { type: 'auth', id: 1, token: 'next' } });
    const answer = { type: 'ok', id: 1, user: 'ada', role: 'editor', expires_in_s: 50 } as const;
    const done = run([{ type: 'frame', socket: 1, frame: answer }], 80_200, sent.state);
    expect(renewal(done.effects)).toMatchObject({ ms: 40_000 });
    expect(done.state.link.status).toBe('open');
  });

  test('is asked for again where the application or the server has none, and the connection stays', () => {
    const asked = run([renew], 80_000, valid.state);
    expect(renewal(asked.effects)).toMatchObject({ ms: limits.renewRetryMs });
    const failed = run([{ type: 'token-failed', socket: 1, message: 'offline' }], 80_100, asked.state);
    expect(failed.effects).toEqual([{ type: 'report', message: 'the token could not be renewed: offline' }]);
    const error = { type: 'error', id: 1, code: 'UNAVAILABLE', message: 'not now', retry: true } as const;
    const sent = [
      { type: 'token', socket: 1, token: 'next' } as Event,
      { type: 'frame', socket: 1, frame: error } as Event,
    ];
    expect(run(sent, 80_200, failed.state).state.link.status).toBe('open');
    expect(run([renew], 85_000, failed.state).effects).toContainEqual({ type: 'get-token', socket: 1 });
  });

  test('is not renewed after the connection has gone, nor where none is needed', () => {
    const gone = run([{ type: 'socket-close', socket: 1, code: 1006, reason: '' }], 90_000, valid.state);
    expect(gone.effects).toContainEqual({ type: 'clear-timer', name: 'renew' });
    expect(run([renew], 90_001, gone.state).effects).toEqual([]);
    expect(renewal(run(opened, 0).effects)).toBeUndefined();
  });

  test('that expired leads to another connection, and one of another user to none', () => {
    const close = (code: number) => run([{ type: 'socket-close', socket: 1, code, reason: '' }], 99_000, valid.state);
    expect(close(4401).state.link.status).toBe('waiting');
    expect(close(4403).state.link.status).toBe('closed');
    expect(close(4403).effects).toContainEqual(expect.objectContaining({ type: 'report', code: 'FORBIDDEN' }));
  });
});

const liveness: Event = { type: 'timer', name: 'liveness' };
const watch = (effects: readonly Effect[]) =>
  effects.findLast((effect) => effect.type === 'set-timer' && effect.name === 'liveness');

test('a wake is followed by a ping with a short deadline, even if an earlier ping has a long one', () => {
  const pinged = run([liveness], 20_000, run(opened, 0).state);
  expect(watch(pinged.effects)).toMatchObject({ ms: 30_000 });
  const woken = run([{ type: 'wake' }], 21_000, pinged.state);
  expect(woken.effects).toContainEqual({ type: 'send', frame: { type: 'ping' } });
  expect(watch(woken.effects)).toMatchObject({ ms: limits.probeMs });
  // repeated wakes do not postpone the deadline
  const again = run([{ type: 'wake' }], 21_000 + limits.probeMs - 1, woken.state);
  expect(watch(again.effects)).toMatchObject({ ms: 1 });
  expect(run([liveness], 21_000 + limits.probeMs, again.state).state.link.status).toBe('waiting');
});
