// One round of the torture run, so that the run itself keeps working. Long runs are started by hand: `npm run torture`.

import { expect, test } from 'vitest';
import { torture } from '../torture/run.ts';

test('a torture run of one round finds nothing wrong', async () => {
  const lines: string[] = [];
  const result = await torture({ seed: 3, seconds: 1, say: (line) => lines.push(line) });
  expect(result.problems, lines.join('\n')).toEqual([]);
  expect(result.faults).toBeGreaterThan(2);
  expect(result.deliveries).toBeGreaterThan(1_000);
});
