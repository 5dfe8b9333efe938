/** Lets only so many of some work run at once; the rest waits in the order in which it came. */

export class Limiter {
  readonly #max: number;
  /** the first to come is the first; to leave costs nothing, however many wait */
  readonly #queue = new Set<() => void>();
  #running = 0;

  constructor(max: number) {
    this.#max = max;
  }

  get waiting(): number {
    return this.#queue.size;
  }

  /** Work that has not begun when the signal aborts never does: rejects with the signal's reason. */
  async run<T>(work: () => Promise<T>, signal?: AbortSignal): Promise<T> {
    signal?.throwIfAborted();
    if (this.#running >= this.#max) await this.#turn(signal);
    else this.#running++;
    try {
      signal?.throwIfAborted();
      return await work();
    } finally {
      // a waiting one takes this one's place
      const [next] = this.#queue;
      if (next) next();
      else this.#running--;
    }
  }

  #turn(signal: AbortSignal | undefined): Promise<void> {
    return new Promise((resolve, reject) => {
      const settle = (how: () => void) => {
        this.#queue.delete(come);
        signal?.removeEventListener('abort', leave);
        how();
      };
      const come = () => settle(resolve);
      const leave = () => settle(() => reject(signal!.reason as Error));
      this.#queue.add(come);
      signal?.addEventListener('abort', leave, { once: true });
    });
  }
}
