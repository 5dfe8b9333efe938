// How long the SDK's brain waits for an answer: as long as what was sent before it is still coming, and no longer.

import { expect, test } from 'vitest';
import { reduce } from '#client/state/machine.ts';
import { type Effect, type Event, initialState, limits, type State } from '#client/state/model.ts';
import type { ServerFrame } from '#shared/wire.ts';

/** One brain on a clock of its own: `answer` is when the deadline of the second request is, in ms. */
class Brain {
  #state: State = initialState;
  readonly effects: Effect[] = [];
  now = 0;
  answer = Number.NaN;

  take(...events: Event[]): void {
    for (const event of events) {
      const { state, effects } = reduce(this.#state, event, { now: this.now, random: 0 });
      this.#state = state;
      this.effects.push(...effects);
      for (const effect of effects)
        if (effect.type === 'set-timer' && effect.name === 'answer 2') this.answer = this.now + effect.ms;
    }
  }

  hear(...frames: ServerFrame[]): void {
    this.take(...frames.map((frame): Event => ({ type: 'frame', socket: 1, frame })));
  }

  /** The clock moves on to the deadline. */
  expire(): void {
    this.now = this.answer;
    this.take({ type: 'timer', name: 'answer 2' });
  }

  get status(): string {
    return this.#state.link.status;
  }
}

const rows: ServerFrame = { type: 'rows', ch: 'a', rows: [{ id: 1 }], more: true };
const subscribe = (member: number, table: string): Event => {
  return { type: 'subscribe', member, subject: { table }, from: null, snapshot: true };
};

/** Rows of one table are on their way, and another is asked for. */
function reading(): Brain {
  const brain = new Brain();
  brain.take(
    subscribe(1, 'large'),
    { type: 'start' },
    { type: 'token', socket: 1 },
    { type: 'socket-open', socket: 1 },
  );
  brain.hear({ type: 'welcome', node: 'gateway-1', ping_ms: 20_000, pos: 'e1.5' }, { type: 'ok', id: 1, ch: 'a' });
  brain.take(subscribe(2, 'small'));
  expect(brain.answer).toBe(limits.answerMs);
  return brain;
}

test('an answer behind rows on a slow network is waited for', () => {
  const brain = reading();
  for (let i = 0; i < 10; i++) {
    brain.now += 20_000;
    brain.hear(rows);
    if (brain.now >= brain.answer) brain.expire();
    expect(brain.status).toBe('open');
  }
  brain.hear({ type: 'rows', ch: 'a', rows: [], more: false }, { type: 'ok', id: 2, ch: 'b' });
  expect(brain.status).toBe('open');
  expect(brain.effects.filter(({ type }) => type === 'report')).toEqual([]);
});

test('so long behind the last of the rows it is given up', () => {
  const brain = reading();
  brain.now = 20_000;
  brain.hear(rows);
  brain.expire();
  expect(brain.status).toBe('open');
  expect(brain.answer).toBe(20_000 + limits.answerMs);
  brain.expire();
  expect(brain.status).toBe('waiting');
});

test.each<ServerFrame>([{ type: 'pong' }, { type: 'pos', pos: 'e1.9' }])(
  'a $type is nothing that an answer could be behind',
  (sign) => {
    const brain = reading();
    brain.now = 29_999;
    brain.hear(sign);
    brain.expire();
    expect(brain.status).toBe('waiting');
  },
);

test('an unsubscribe is waited for no longer', () => {
  const brain = reading();
  brain.hear({ type: 'ok', id: 2, ch: 'b' });
  brain.take({ type: 'unsubscribe', member: 1 });
  expect(brain.effects.findLast(({ type }) => type === 'set-timer')).toMatchObject({ name: 'answer 3' });
  brain.now += limits.answerMs;
  brain.take({ type: 'timer', name: 'answer 3' });
  expect(brain.status).toBe('waiting');
});
