/**
 * How often the operators' token may be guessed. Wrong tokens are counted for each address and in all, a minute long: an address that
 * has used up its share is not judged until the minute is over, not even with the right one. Where many addresses guess, those without a
 * success in it are judged no more; who holds a cookie is not concerned.
 */
import { isIPv6 } from 'node:net';

const windowMs = 60_000;
const maxOfAddress = 10;
const maxOfAll = 1_000;
/** of addresses that are remembered: the counts of one minute, at most as many as there may be guesses */
const maxKnown = 10_000;

export class Guesses {
  readonly #now: () => number;
  #windowEnds = 0;
  #all = 0;
  #wrong = new Map<string, number>();
  /** addresses that have brought the token */
  readonly #right = new Set<string>();

  constructor(now: () => number = () => performance.now()) {
    this.#now = now;
  }

  /** In so many seconds a token of this address is judged; 0: now. */
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

/** Of IPv6 the first 64 bits: who has one address there has all of them. */
function networkOf(address: string): string {
  if (!isIPv6(address) || address.startsWith('::')) return address;
  const groups = address.split('::')[0]!.split(':');
  return [...groups, '0', '0', '0'].slice(0, 4).join(':');
}
