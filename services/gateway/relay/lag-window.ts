/**
 * How long changes took lately: quantiles over the last ten seconds, in a fixed amount of memory.
 * A reported quantile is up to 25 % above the true one.
 */

const seconds = 10;
const base = 1.25;
/** bucket n ends at 1.25^n × 0.1 ms; the last but one ends at nearly two minutes */
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

  /** The quantiles in ms; null: nothing was recorded in the last ten seconds. `parts`: 0.5 for the median. */
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
