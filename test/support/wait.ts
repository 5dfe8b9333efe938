// Owns how tests wait: for a condition, until a deadline, with words for a condition that did not hold in time.

import { setTimeout as delay } from 'node:timers/promises';

/** Polls `condition` until it holds. Resolves with how long that took, in ms. */
export async function until(
  what: string,
  condition: () => boolean | Promise<boolean>,
  deadlineMs: number,
): Promise<number> {
  const started = performance.now();
  while (!(await condition())) {
    if (performance.now() - started > deadlineMs) throw new Error(`did not happen within ${deadlineMs} ms: ${what}`);
    await delay(10);
  }
  return performance.now() - started;
}

/** `condition` must hold for `ms`. Throws when it does not. */
export async function remains(what: string, condition: () => boolean, ms: number): Promise<void> {
  const end = performance.now() + ms;
  while (performance.now() < end) {
    if (!condition()) throw new Error(`did not stay true for ${ms} ms: ${what}`);
    await delay(10);
  }
}
