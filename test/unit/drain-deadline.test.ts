// How long a drain may take: longer only after one that took long, and never without a limit.

import { expect, test } from 'vitest';
import { DrainDeadline } from '#listener/drain-deadline.ts';

test('a drain that is given up for its length gets twice as long, up to ten minutes', () => {
  const deadline = new DrainDeadline();
  const tried = Array.from({ length: 9 }, () => {
    const { ms } = deadline;
    deadline.failed(ms + 500);
    return ms / 1_000;
  });
  expect(tried).toEqual([4, 8, 16, 32, 64, 128, 256, 512, 600]);
  deadline.succeeded();
  expect(deadline.ms).toBe(4_000);
});

test('a drain that fails at once, as its connection broke, makes no later one wait longer', () => {
  const deadline = new DrainDeadline();
  for (let i = 0; i < 20; i++) deadline.failed(3);
  expect(deadline.ms).toBe(4_000);
  deadline.failed(4_100);
  for (let i = 0; i < 20; i++) deadline.failed(1_000);
  expect(deadline.ms).toBe(8_000);
});
