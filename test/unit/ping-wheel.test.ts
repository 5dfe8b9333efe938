// One timer for all connections: each is visited once a turn, spread over the turn.

import { afterEach, beforeEach, describe, expect, test, vi } from 'vitest';
import { PingWheel } from '#gateway/clients/ping-wheel.ts';

beforeEach(() => {
  vi.useFakeTimers();
});

afterEach(() => {
  vi.useRealTimers();
});

describe('PingWheel', () => {
  test('a wheel visits each entry once in an interval, and few at a time', () => {
    const seen = new Map<number, number>();
    let atOnce = 0;
    const wheel = new PingWheel<number>(10_000, (one) => {
      seen.set(one, (seen.get(one) ?? 0) + 1);
      atOnce++;
    });
    for (let one = 0; one < 1_000; one++) wheel.add(one);
    wheel.start();
    let most = 0;
    for (let ms = 0; ms < 10_000; ms += 50) {
      atOnce = 0;
      vi.advanceTimersByTime(50);
      most = Math.max(most, atOnce);
    }
    expect([...seen.values()]).toEqual(Array.from({ length: 1_000 }, () => 1));
    expect(most).toBe(25);
    vi.advanceTimersByTime(20_000);
    expect(new Set(seen.values())).toEqual(new Set([3]));
    wheel.stop();
  });

  test('a wheel skips an entry that was removed, even during its turn', () => {
    const seen: string[] = [];
    const slots = new Map<string, number>();
    const wheel = new PingWheel<string>(250, (one) => {
      seen.push(one);
      for (const gone of ['b', one]) wheel.remove(gone, slots.get(gone)!);
    });
    for (const one of ['a', 'b', 'c']) slots.set(one, wheel.add(one));
    wheel.start();
    vi.advanceTimersByTime(1_000);
    expect(seen).toEqual(['a', 'c']);
    wheel.remove('a', slots.get('a')!);
    wheel.stop();
  });

  test('a wheel visits nobody before its start and after its stop, and starts once', () => {
    let looks = 0;
    const wheel = new PingWheel<string>(1_000, () => looks++);
    wheel.add('a');
    vi.advanceTimersByTime(5_000);
    expect(looks).toBe(0);
    wheel.start();
    wheel.start();
    vi.advanceTimersByTime(1_000);
    expect(looks).toBe(1);
    wheel.stop();
    wheel.stop();
    expect(vi.getTimerCount()).toBe(0);
    vi.advanceTimersByTime(5_000);
    expect(looks).toBe(1);
  });

  test.each([1, 100, 250, 26_000, 86_400_000])('a wheel turns once in an interval of %i ms', (interval) => {
    let looks = 0;
    const wheel = new PingWheel<string>(interval, () => looks++);
    wheel.add('a');
    wheel.start();
    vi.advanceTimersByTime(interval * 10 + 1);
    expect(looks).toBeGreaterThanOrEqual(10);
    expect(looks).toBeLessThanOrEqual(11);
    wheel.stop();
  });
});
