// Waiting and trying again: bounds of the backoff, the bell that loses no ring, deadlines.

import * as fc from 'fast-check';
import { describe, expect, test } from 'vitest';
import { Backoff, Bell, every, once, sleep, withDeadlineOr } from '#shared/waiting.ts';

const never = new AbortController().signal;

describe('Backoff', () => {
  const highest = () => 1 - Number.EPSILON;

  test('the backoff doubles its ceiling up to the largest, and starts over on reset', () => {
    const backoff = new Backoff(50, 1_000, highest);
    expect(Array.from({ length: 7 }, () => Math.round(backoff.next()))).toEqual([
      100, 200, 400, 800, 1_000, 1_000, 1_000,
    ]);
    backoff.reset();
    expect(Math.round(backoff.next())).toBe(100);
  });

  test('each wait is anywhere between the smallest and the ceiling, and nowhere else', () => {
    fc.assert(
      fc.property(
        fc.integer({ min: 1, max: 1_000 }),
        fc.integer({ min: 0, max: 100_000 }),
        fc.array(fc.double({ min: 0, max: 1, maxExcluded: true, noNaN: true }), { minLength: 1, maxLength: 2_000 }),
        (min, more, randoms) => {
          let i = 0;
          const backoff = new Backoff(min, min + more, () => randoms[i]!);
          for (; i < randoms.length; i++) {
            const ceiling = Math.min(min + more, min * 2 ** (i + 1));
            const next = backoff.next();
            expect(next).toBeGreaterThanOrEqual(min);
            expect(next).toBeLessThanOrEqual(ceiling);
            expect(next).toBeCloseTo(min + randoms[i]! * (ceiling - min), 5);
          }
        },
      ),
    );
  });

  test('the backoff spreads clients that failed together', () => {
    const all = Array.from({ length: 200 }, () => {
      const backoff = new Backoff(50, 2_000);
      return Array.from({ length: 9 }, () => backoff.next());
    });
    const spread = (waits: number[], width: number) => new Set(waits.map((ms) => Math.floor(ms / width))).size;
    // also those that failed for the first time
    expect(
      spread(
        all.map(([first]) => first!),
        5,
      ),
    ).toBeGreaterThan(6);
    expect(
      spread(
        all.map((waits) => waits.at(-1)!),
        200,
      ),
    ).toBeGreaterThan(6);
  });
});

describe('Bell', () => {
  test('a ring wakes the sleeper', async () => {
    const bell = new Bell();
    const waiting = bell.wait(10_000, never);
    bell.ring();
    expect(await waiting).toBe(true);
  });

  test('a bell keeps a ring for the next wait, once', async () => {
    const bell = new Bell();
    bell.ring();
    bell.ring();
    expect(await bell.wait(10_000, never)).toBe(true);
    expect(await bell.wait(1, never)).toBe(false);
  });

  test('a bell keeps a ring that comes between the waking and the next wait', async () => {
    const bell = new Bell();
    const waiting = bell.wait(10_000, never);
    bell.ring();
    await waiting;
    bell.ring();
    expect(await bell.wait(0, never)).toBe(true);
  });

  test('a wait ends after its time, at once with none, and on abort', async () => {
    const bell = new Bell();
    expect(await bell.wait(5, never)).toBe(false);
    expect(await bell.wait(0, never)).toBe(false);
    expect(await bell.wait(-1, never)).toBe(false);
    expect(await bell.wait(10_000, AbortSignal.abort())).toBe(false);
    const abort = new AbortController();
    const waiting = bell.wait(10_000, abort.signal);
    abort.abort();
    expect(await waiting).toBe(false);
  });

  test('a bell loses no ring, however rings fall between the waits', async () => {
    const bell = new Bell();
    let made = 0;
    let seen = 0;
    const reader = (async () => {
      while (seen < 500) {
        expect(await bell.wait(5_000, never)).toBe(true);
        seen = made;
      }
    })();
    while (made < 500) {
      made++;
      bell.ring();
      if (made % 3 === 0) await Promise.resolve();
      if (made % 7 === 0) await sleep(0);
    }
    await reader;
    expect(seen).toBe(500);
  });
});

describe('withDeadlineOr', () => {
  test('withDeadlineOr settles as the promise does', async () => {
    const late = () => new Error('late');
    expect(await withDeadlineOr(Promise.resolve(3), 10_000, late)).toBe(3);
    await expect(withDeadlineOr(Promise.reject(new Error('no')), 10_000, late)).rejects.toThrow('no');
  });

  test('withDeadlineOr rejects when the time is over, and ignores a later outcome', async () => {
    const { promise, reject } = Promise.withResolvers<never>();
    await expect(withDeadlineOr(promise, 5, () => new Error('late'))).rejects.toThrow('late');
    // an unhandled rejection fails the run
    reject(new Error('much later'));
    await sleep(0);
  });

  test('withDeadlineOr makes the error only when the promise is late', async () => {
    let asked = 0;
    const late = () => {
      asked++;
      return new Error('late');
    };
    await withDeadlineOr(Promise.resolve(), 1, late);
    await sleep(5);
    expect(asked).toBe(0);
  });
});

describe('sleep', () => {
  test('a sleep ends by its time or its signal, and leaves no listener on the signal', async () => {
    const abort = new AbortController();
    let listeners = 0;
    const { signal } = abort;
    const add = signal.addEventListener.bind(signal);
    const remove = signal.removeEventListener.bind(signal);
    signal.addEventListener = (...args: Parameters<typeof add>) => {
      listeners++;
      add(...args);
    };
    signal.removeEventListener = (...args: Parameters<typeof remove>) => {
      listeners--;
      remove(...args);
    };
    await sleep(1, signal);
    expect(listeners).toBe(0);
    const sleeping = sleep(60_000, signal);
    expect(listeners).toBe(1);
    abort.abort();
    await sleeping;
    expect(listeners).toBe(0);
    await sleep(60_000, signal);
  });
});

describe('every', () => {
  test('every() runs again after an error, pauses as long as a run says, and ends with its signal', async () => {
    const abort = new AbortController();
    const errors: string[] = [];
    let runs = 0;
    const began = performance.now();
    await every(
      // longer than the test may take: each run and each error below ask for another pause
      60_000,
      abort.signal,
      async () => {
        runs++;
        if (runs === 2) throw new Error('the second run fails');
        if (runs === 4) abort.abort();
        return 5;
      },
      (error) => {
        errors.push(error.message);
        return 5;
      },
    );
    expect([runs, errors]).toEqual([4, ['the second run fails']]);
    expect(performance.now() - began).toBeGreaterThanOrEqual(10);
  });

  test('every() reports no error of a run that its signal ended', async () => {
    const abort = new AbortController();
    const errors: Error[] = [];
    await every(
      60_000,
      abort.signal,
      async () => {
        abort.abort();
        throw new Error('ended');
      },
      (error) => void errors.push(error),
    );
    expect(errors).toEqual([]);
  });
});

describe('once', () => {
  test('once() runs its function once, and gives every caller the same outcome', async () => {
    let runs = 0;
    const start = once(async () => ++runs);
    expect(await Promise.all([start(), start()])).toEqual([1, 1]);
    expect(await start()).toBe(1);
    const fail = once(() => Promise.reject(new Error(`run ${++runs}`)));
    await expect(fail()).rejects.toThrow('run 2');
    await expect(fail()).rejects.toThrow('run 2');
  });
});
