/**
 * Limits how often the operators' token can be guessed. Wrong tokens are counted for a minute, by address
 * and in total. After 10 wrong tokens from an address, every token from it is refused until the minute is
 * over, even the right one. After 1,000 wrong tokens in total, tokens are accepted only from addresses that
 * have sent the right token before. Requests with a cookie are not limited.
 */
import { isIPv6 } from 'node:net';

const windowMs = 60_000;
const maxOfAddress = 10;
const maxOfAll = 1_000;
/** at most this many addresses are remembered */
const maxKnown = 10_000;

export class Guesses {
  readonly #now: () => number;
  #windowEnds = 0;
  #all = 0;
  #wrong = new Map<string, number>();
  /** addresses that have sent the right token */
  readonly #right = new Set<string>();

  constructor(now: () => number = () => performance.now()) {
    this.#now = now;
  }

  /** The number of seconds until a token from this address is checked; 0: it is checked now. */
  waitSeconds(address: string): number {
    const now = this.#now();
    if (now >= this.#windowEnds) {
      this.#windowEnds = now + windowMs;
      this.#all = 0;
      this.#wrong = new Map();
    }
    const key = networkOf(address);
    const isOver = (this.#wrong.get(key) ?? 0) >= maxOfAddress || (this.#all >= maxOfAll && !this.#right.has(key));
    return isOver ? Math.max(1, Math.ceil((this.#windowEnds - now) / 1_000)) : 0;
  }

  count(address: string, isRight: boolean): void {
    const key = networkOf(address);
    if (isRight) {
      if (this.#right.size < maxKnown) this.#right.add(key);
      return;
    }
    this.#all++;
    if (this.#wrong.has(key) || this.#wrong.size < maxKnown) this.#wrong.set(key, (this.#wrong.get(key) ?? 0) + 1);
  }
}

/** An IPv6 address counts by its first 64 bits, as a client can use any address of such a network. */
function networkOf(address: string): string {
  if (!isIPv6(address) || address.startsWith('::')) return address;
  const groups = address.split('::')[0]!.split(':');
  return [...groups, '0', '0', '0'].slice(0, 4).join(':');
}
