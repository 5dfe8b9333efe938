// How long the SDK waits for an answer: while frames that were sent before the answer still arrive,
// and no longer.

import { expect, test } from 'vitest';
import { limits } from '#client/state/limits.ts';
import { reduce } from '#client/state/machine.ts';
import { type Effect, type Event, initialState, type State } from '#client/state/model.ts';
import type { ServerFrame } from '#shared/wire.ts';

/** A state machine on a clock of its own. `answer` is the deadline of the second request, in ms. */
class Machine {
  #state: State = initialState;
  readonly effects: Effect[] = [];
  now = 0;
  answer = Number.NaN;

  dispatch(...events: Event[]): void {
    for (const event of events) {
      const { state, effects } = reduce(this.#state, event, { now: this.now, random: 0 });
      this.#state = state;
      this.effects.push(...effects);
      for (const effect of effects)
        if (effect.type === 'set-timer' && effect.name === 'answer 2') this.answer = this.now + effect.ms;
    }
  }

  receive(...frames: ServerFrame[]): void {
    this.dispatch(...frames.map((frame): Event => ({ type: 'frame', socket: 1, frame })));
  }

  /** Moves the clock to the deadline. */
  expire(): void {
    this.now = this.answer;
    this.dispatch({ type: 'timer', name: 'answer 2' });
  }

  get status(): string {
    return this.#state.link.status;
  }
}

const rows: ServerFrame = { type: 'rows', ch: 'a', rows: [{ id: 1 }], more: true };
const subscribe = (member: number, table: string): Event => {
  return { type: 'subscribe', member, query: { table }, from: null, snapshot: true };
};

/** Rows of one table are arriving, and another table is subscribed to. */
function reading(): Machine {
  const machine = new Machine();
  machine.dispatch(
    subscribe(1, 'large'),
    { type: 'start' },
    { type: 'token', socket: 1 },
    { type: 'socket-open', socket: 1 },
  );
  machine.receive({ type: 'welcome', node: 'gateway-1', ping_ms: 20_000, pos: 'e1.5' }, { type: 'ok', id: 1, ch: 'a' });
  machine.dispatch(subscribe(2, 'small'));
  expect(machine.answer).toBe(limits.answerMs);
  return machine;
}

test('an answer after rows on a slow network is waited for', () => {
  const machine = reading();
  for (let i = 0; i < 10; i++) {
    machine.now += 20_000;
    machine.receive(rows);
    if (machine.now >= machine.answer) machine.expire();
    expect(machine.status).toBe('open');
  }
  machine.receive({ type: 'rows', ch: 'a', rows: [], more: false }, { type: 'ok', id: 2, ch: 'b' });
  expect(machine.status).toBe('open');
  expect(machine.effects.filter(({ type }) => type === 'report')).toEqual([]);
});

test('an answer that does not follow the last rows in time ends the connection', () => {
  const machine = reading();
  machine.now = 20_000;
  machine.receive(rows);
  machine.expire();
  expect(machine.status).toBe('open');
  expect(machine.answer).toBe(20_000 + limits.answerMs);
  machine.expire();
  expect(machine.status).toBe('waiting');
});

test.each<ServerFrame>([{ type: 'pong' }, { type: 'pos', pos: 'e1.9' }])(
  'a $type does not extend the deadline of an answer',
  (sign) => {
    const machine = reading();
    machine.now = 29_999;
    machine.receive(sign);
    machine.expire();
    expect(machine.status).toBe('waiting');
  },
);

test('an unsubscribe has the same deadline', () => {
  const machine = reading();
  machine.receive({ type: 'ok', id: 2, ch: 'b' });
  machine.dispatch({ type: 'unsubscribe', member: 1 });
  expect(machine.effects.findLast(({ type }) => type === 'set-timer')).toMatchObject({ name: 'answer 3' });
  machine.now += limits.answerMs;
  machine.dispatch({ type: 'timer', name: 'answer 3' });
  expect(machine.status).toBe('waiting');
});
