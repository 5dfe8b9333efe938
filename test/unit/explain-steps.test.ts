// Which step of an explained change is its summary.

import { expect, test } from 'vitest';
import { endOf, type Step } from '#gateway/ops/explain-steps.ts';

const steps = (...states: [Step['step'], Step['state']][]): Step[] =>
  states.map(([step, state]) => ({ step, state, text: `${step} ${state}` }));

test.each([
  [
    'a client got the change, whatever another replica lacks',
    steps(['received', 'waiting'], ['matched', 'done'], ['written', 'done']),
    'written done',
  ],
  [
    'a client waits for the change',
    steps(['received', 'done'], ['matched', 'done'], ['written', 'waiting']),
    'written waiting',
  ],
  ['the change has no position yet', steps(['captured', 'done'], ['sequenced', 'waiting']), 'sequenced waiting'],
  ['the change does not concern the client', steps(['received', 'done'], ['matched', 'no']), 'matched no'],
  ['no client was named', steps(['received', 'done'], ['matched', 'done']), 'matched done'],
])('the summary is the right step where %s', (_what, given, text) => {
  expect(endOf(given).text).toBe(text);
});
