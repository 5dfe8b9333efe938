/**
 * A bound on a resource that clients hold while they take an answer: characters of memory, or
 * places. A caller that needs some of the resource waits until there is room, in the order of
 * arrival. While a caller waits, the client whose page has waited longest loses its share, but not
 * before the page has waited for `patienceMs`. So callers do not wait for clients that do not read.
 */
import { settlesWithin } from '#shared/waiting.ts';

const pressEveryMs = 50;

/** The client did not take a page in time. */
export class TooSlow extends Error {
  override readonly name = 'TooSlow';
}

/** A page that waits for a client. */
interface Wait {
  readonly since: number;
  /**
   * the result that the page is part of. The result's room is free only when all clients that hold
   * the result have lost it, so they lose it together.
   */
  readonly of: object;
  readonly evict: () => void;
}

export class Budget {
  readonly #size: number;
  readonly #patienceMs: number;
  #used = 0;
  /** the longest wait first */
  readonly #waits = new Set<Wait>();
  readonly #queue = new Set<() => void>();
  #timer: NodeJS.Timeout | undefined;

  constructor(size: number, patienceMs: number) {
    this.#size = size;
    this.#patienceMs = patienceMs;
  }

  get hasRoom(): boolean {
    return this.#used < this.#size;
  }

  /** Whether there is room. If there is none, the client whose page has waited longest loses its share, as above. */
  makeRoom(): boolean {
    if (this.hasRoom) return true;
    this.#evict();
    return false;
  }

  /** Waits until there is room, and takes `amount` for the caller. Rejects with the signal's reason on abort. */
  async enter(amount: number, signal: AbortSignal): Promise<void> {
    signal.throwIfAborted();
    if (this.#queue.size === 0 && this.#used < this.#size) this.take(amount);
    else await this.#turn(amount, signal);
  }

  take(amount: number): void {
    this.#used += amount;
  }

  free(amount: number): void {
    this.#used -= amount;
    this.#admit();
  }

  /** Waits until a client has taken a page. Rejects with TooSlow after `deadlineMs`, or if other callers need room. */
  async taken(page: Promise<boolean>, of: object, deadlineMs: number): Promise<boolean> {
    const evicted = Promise.withResolvers<never>();
    const evict = () => evicted.reject(new TooSlow('others need the room that this client holds'));
    const wait: Wait = { since: performance.now(), of, evict };
    this.#waits.add(wait);
    try {
      const inTime = await Promise.race([settlesWithin(page, deadlineMs), evicted.promise]);
      if (!inTime) throw new TooSlow(`the client did not take a page within ${deadlineMs} ms`);
      return await page;
    } finally {
      this.#waits.delete(wait);
    }
  }

  #turn(amount: number, signal: AbortSignal): Promise<void> {
    return new Promise((resolve, reject) => {
      const leaveQueue = () => {
        this.#queue.delete(enter);
        signal.removeEventListener('abort', giveUp);
        if (this.#queue.size === 0) clearTimeout(this.#timer);
      };
      const enter = () => {
        leaveQueue();
        this.take(amount);
        resolve();
      };
      const giveUp = () => {
        leaveQueue();
        reject(signal.reason as Error);
      };
      this.#queue.add(enter);
      signal.addEventListener('abort', giveUp, { once: true });
      if (this.#queue.size === 1) this.#press();
    });
  }

  #admit(): void {
    for (const enter of this.#queue) {
      if (this.#used >= this.#size) return;
      enter();
    }
  }

  /** Repeats itself every 50 ms while a caller waits. */
  readonly #press = (): void => {
    this.#evict();
    this.#timer = setTimeout(this.#press, pressEveryMs);
  };

  #evict(): void {
    const now = performance.now();
    const [longest] = this.#waits;
    if (!longest) return;
    for (const wait of this.#waits) {
      if (now - wait.since < this.#patienceMs) return;
      if (wait.of !== longest.of) continue;
      this.#waits.delete(wait);
      wait.evict();
    }
  }
}
