// The quantiles of the last ten seconds: never below the true ones, at most a quarter above, and without older records.

import * as fc from 'fast-check';
import { expect, test } from 'vitest';
import { LagWindow } from '#gateway/relay/lag-window.ts';

test('a quantile is at most a quarter above the recorded one, and not below it', () => {
  fc.assert(
    fc.property(fc.array(fc.double({ min: 0.1, max: 50_000, noNaN: true }), { minLength: 1 }), (lags) => {
      const window = new LagWindow();
      for (const ms of lags) window.record(ms, 1_000);
      const sorted = [...lags].sort((a, b) => a - b);
      const [half, most] = window.quantiles([0.5, 1], 1_500)!;
      for (const [reported, exact] of [
        [half, sorted[Math.ceil(lags.length / 2) - 1]!],
        [most, sorted.at(-1)!],
      ] as const) {
        // quantiles are rounded to two digits
        expect(reported).toBeGreaterThanOrEqual(exact * 0.95);
        expect(reported).toBeLessThanOrEqual(exact * 1.25 * 1.05);
      }
    }),
  );
});

test('a window reports nothing while nothing was recorded, and drops records within ten seconds', () => {
  const window = new LagWindow();
  expect(window.quantiles([0.5], 0)).toBeNull();
  window.record(5, 100_000);
  window.record(500, 104_000);
  expect(window.quantiles([1], 109_900)).toEqual([600]);
  expect(window.quantiles([1], 113_900)).toEqual([600]);
  expect(window.quantiles([0.5], 114_000)).toBeNull();
});
