/**
 * How long changes took lately: quantiles over the last ten seconds, in a fixed amount of memory.
 * They are up to a quarter above the true ones.
 */

const seconds = 10;
const base = 1.25;
/** up to 1.25^62 × 0.1 ms, nearly two minutes */
const buckets = 64;
const smallestMs = 0.1;

export class LagWindow {
  readonly #counts = Array.from({ length: seconds }, () => new Uint32Array(buckets));
  #second = 0;

  record(ms: number, now: number): void {
    this.#turn(now);
    const bucket = Math.ceil(Math.log(Math.max(ms, smallestMs) / smallestMs) / Math.log(base));
    this.#counts[this.#second % seconds]![Math.min(buckets - 1, bucket)]!++;
  }

  /** The quantiles in ms; null where nothing was recorded in that time. */
  quantiles<const Q extends readonly number[]>(parts: Q, now: number): { [Index in keyof Q]: number } | null {
    this.#turn(now);
    const sums = new Uint32Array(buckets);
    let total = 0;
    for (const counts of this.#counts) {
      for (let i = 0; i < buckets; i++) {
        sums[i]! += counts[i]!;
        total += counts[i]!;
      }
    }
    if (total === 0) return null;
    return parts.map((part) => {
      let left = part * total;
      const bucket = sums.findIndex((count) => (left -= count) <= 0);
      return Number((smallestMs * base ** (bucket < 0 ? buckets - 1 : bucket)).toPrecision(2));
    }) as { [Index in keyof Q]: number };
  }

  /** Clears the seconds that are over. */
  #turn(now: number): void {
    const second = Math.floor(now / 1_000);
    if (second <= this.#second) return;
    const from = Math.max(this.#second + 1, second - seconds + 1);
    for (let each = from; each <= second; each++) this.#counts[each % seconds]!.fill(0);
    this.#second = second;
  }
}
