// Owns how tests wait: for a condition, until a deadline, with words for what did not happen.

import { setTimeout as delay } from 'node:timers/promises';

/** Polls `condition` until it holds and answers how many milliseconds that took. */
export async function until(
  what: string,
  condition: () => boolean | Promise<boolean>,
  deadlineMs: number,
): Promise<number> {
  const started = performance.now();
  while (!(await condition())) {
    if (performance.now() - started > deadlineMs) throw new Error(`within ${deadlineMs} ms it did not happen: ${what}`);
    await delay(10);
  }
  return performance.now() - started;
}

/** What holds now must go on to hold for `ms`. Throws at the first moment when it does not. */
export async function remains(what: string, condition: () => boolean, ms: number): Promise<void> {
  const end = performance.now() + ms;
  while (performance.now() < end) {
    if (!condition()) throw new Error(`it did not remain so: ${what}`);
    await delay(10);
  }
}
