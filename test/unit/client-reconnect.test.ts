// After which close codes the SDK connects again, and how soon it notices that it has to.

import { expect, test } from 'vitest';
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
  [4403, true],
  // a page that was frozen while its socket opened sends hello when it is thawed
  [4408, false],
  [4429, true],
  [4500, false],
  [4508, false],
])('close code %i is final: %s', (code, stays) => {
  expect(isFinal(code)).toBe(stays);
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
