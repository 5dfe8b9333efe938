/**
 * The state that gateways share besides the log: values that can be taken once, seats (for example the connections of
 * one user), and rates. There are two implementations, in memory for embedded mode and in Redis, and one test suite
 * tests both. While Redis does not answer, each gateway counts alone, so that clients are still served.
 */
import { RateLimiterMemory, RateLimiterRes } from 'rate-limiter-flexible';

export interface SharedState {
  /** Keeps a text for `ttlMs`. Rejects if the text cannot be kept. */
  keep(name: string, text: string, ttlMs: number): Promise<void>;
  /**
   * Returns a kept text and deletes it, so that it can be taken once. Null: there is no such text. Rejects if the state
   * does not answer.
   */
  take(name: string): Promise<string | null>;
  /** Takes one of the `max` seats of this name, counted over all gateways. Null: all seats are taken. Never rejects. */
  sit(name: string, max: number): Promise<Seat | null>;
  rate(name: string, limit: RateLimit): Rate;
  stop(): Promise<void>;
}

export interface Seat {
  leave(): void;
}

export interface RateLimit {
  /** how many uses are allowed within `seconds` */
  points: number;
  /** the length of the period that `points` counts, in seconds; the period begins with its first use */
  seconds: number;
}

/** Limits how often something is used. Neither method rejects. */
export interface Rate {
  /** Counts one use. Resolves with 0, or with the ms to wait if this use is over the limit. */
  use(key: string): Promise<number>;
  /** Returns the same as `use`, but counts nothing. */
  waitMs(key: string): Promise<number>;
}

export class LocalState implements SharedState {
  readonly #kept = new Map<string, { text: string; timer: NodeJS.Timeout }>();
  readonly #seats = new LocalSeats();

  async keep(name: string, text: string, ttlMs: number): Promise<void> {
    clearTimeout(this.#kept.get(name)?.timer);
    this.#kept.set(name, { text, timer: setTimeout(() => this.#kept.delete(name), ttlMs).unref() });
  }

  async take(name: string): Promise<string | null> {
    const found = this.#kept.get(name);
    if (!found) return null;
    clearTimeout(found.timer);
    this.#kept.delete(name);
    return found.text;
  }

  async sit(name: string, max: number): Promise<Seat | null> {
    return this.#seats.sit(name, max);
  }

  rate(name: string, limit: RateLimit): Rate {
    return new LocalRate(name, limit);
  }

  async stop(): Promise<void> {
    for (const { timer } of this.#kept.values()) clearTimeout(timer);
    this.#kept.clear();
  }
}

/** The seats of this process. */
export class LocalSeats {
  readonly #taken = new Map<string, number>();

  /** Every name with taken seats, and the number of its taken seats. */
  [Symbol.iterator](): Iterator<[string, number]> {
    return this.#taken.entries();
  }

  sit(name: string, max: number): Seat | null {
    const taken = this.#taken.get(name) ?? 0;
    if (taken >= max) return null;
    this.#taken.set(name, taken + 1);
    let isTaken = true;
    return {
      leave: () => {
        if (isTaken) this.#free(name);
        isTaken = false;
      },
    };
  }

  #free(name: string): void {
    const left = this.#taken.get(name)! - 1;
    if (left > 0) this.#taken.set(name, left);
    else this.#taken.delete(name);
  }
}

export class LocalRate implements Rate {
  readonly limiter: RateLimiterMemory;
  readonly #points: number;

  constructor(name: string, { points, seconds }: RateLimit) {
    this.#points = points;
    this.limiter = new RateLimiterMemory({ keyPrefix: name, points, duration: seconds });
  }

  use(key: string): Promise<number> {
    return waitOf(this.limiter.consume(key));
  }

  async waitMs(key: string): Promise<number> {
    return waitLeft(await this.limiter.get(key), this.#points);
  }
}

/** The ms to wait after a use; 0: the use is within the limit. Rejects if the limiter failed. */
export async function waitOf(used: Promise<RateLimiterRes>): Promise<number> {
  try {
    await used;
    return 0;
  } catch (refused) {
    if (refused instanceof RateLimiterRes) return Math.max(1, refused.msBeforeNext);
    throw refused;
  }
}

/** The ms until another use is within the limit; 0: another use is within the limit now. */
export function waitLeft(state: RateLimiterRes | null, points: number): number {
  return state !== null && state.consumedPoints >= points ? Math.max(1, state.msBeforeNext) : 0;
}
