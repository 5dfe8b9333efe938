// Events for the SDK's state machine, and what tests read of its effects: the frames of one
// subscription with the channel `a`, and the events that lead it from the beginning until it is
// live, each list one step longer than the one before. What must stay true: each state is frozen
// before it is passed to the reducer.

import { reduce } from '#client/state/machine.ts';
import { type Effect, type Event, initialState, type State } from '#client/state/model.ts';
import type { ServerFrame } from '#shared/wire.ts';

export const world = { now: 1_000, random: 0.5 };
export const query = { table: 'items' };

export function run(
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

export function freeze<T>(value: T): T {
  if (value === null || typeof value !== 'object' || Object.isFrozen(value)) return value;
  if (value instanceof Map) for (const member of value.values()) freeze(member);
  else for (const member of Object.values(value)) freeze(member);
  return Object.freeze(value);
}

export const frame = (content: ServerFrame): Event => ({ type: 'frame', socket: 1, frame: content });
export const subscribe = (member: number, snapshot = true, from: string | null = null): Event => {
  return { type: 'subscribe', member, query, from, snapshot };
};
export const welcome = frame({ type: 'welcome', node: 'gateway-1', ping_ms: 20_000, pos: 'e1.5' });
export const ok = (id: number) => frame({ type: 'ok', id, ch: 'a', key: ['id'] });
export const rows = (more: boolean) => frame({ type: 'rows', ch: 'a', rows: [{ id: 1 }], more });
export const live = (pos = 'e1.5') => frame({ type: 'live', ch: 'a', pos });
export const change = (pos: string) =>
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
export const close = (code: number): Event => ({ type: 'socket-close', socket: 1, code, reason: 'so' });

export const connecting: Event[] = [subscribe(1), { type: 'start' }];
export const dialing: Event[] = [...connecting, { type: 'token', socket: 1, token: 'secret' }];
export const opening: Event[] = [...dialing, { type: 'socket-open', socket: 1 }];
export const requested = [...opening, welcome];
export const reading = [...requested, ok(1), rows(true)];
export const catchingUp = [...reading, rows(false)];
export const isLive = [...catchingUp, live()];

export const sends = (effects: readonly Effect[]) =>
  effects.flatMap((effect) => (effect.type === 'send' ? [effect.frame] : []));
export const timer = (effects: readonly Effect[], name: string) =>
  effects.findLast((effect) => effect.type === 'set-timer' && effect.name === name) as { ms: number } | undefined;
export const deliveries = (effects: readonly Effect[], to: number) =>
  effects.flatMap((effect) => (effect.type === 'deliver' && effect.member === to ? [effect.delivery] : []));
