// Owns what the benchmarks make of repeated measurements: medians, and how far one can be trusted.

export interface Interval {
  median: number;
  low: number;
  high: number;
}

export function median(values: readonly number[]): number {
  const sorted = values.toSorted((a, b) => a - b);
  const middle = sorted.length >> 1;
  return sorted.length % 2 === 1 ? sorted[middle]! : (sorted[middle - 1]! + sorted[middle]!) / 2;
}

/** The median with its bootstrap 95 % interval. */
export function interval(values: readonly number[]): Interval {
  if (values.length === 0) throw new Error('nothing was measured');
  const random = generator(values.length);
  const medians = Array.from({ length: 10_000 }, () =>
    median(values.map(() => values[Math.floor(random() * values.length)]!)),
  ).sort((x, y) => x - y);
  return { median: median(values), low: medians[250]!, high: medians[9_749]! };
}

/**
 * The median of `a[i] / b[i]` with its bootstrap 95 % interval. The two of a pair were measured one after the other, so that
 * what slows the machine for a while slows both.
 */
export function ratio(a: readonly number[], b: readonly number[]): Interval {
  if (a.length !== b.length) throw new Error(`${a.length} rounds against ${b.length}`);
  return interval(a.map((value, i) => value / b[i]!));
}

/** mulberry32: the same numbers give the same interval */
function generator(seed: number): () => number {
  let state = seed;
  return () => {
    state = (state + 0x6d2b79f5) | 0;
    let t = Math.imul(state ^ (state >>> 15), 1 | state);
    t = (t + Math.imul(t ^ (t >>> 7), 61 | t)) ^ t;
    return ((t ^ (t >>> 14)) >>> 0) / 2 ** 32;
  };
}
