/** Runs at most `max` pieces of work at once. The others wait in the order in which they came. */

export class Limiter {
  readonly #max: number;
  /** in order of arrival; a Set, so that leaving it costs nothing, however many wait */
  readonly #queue = new Set<() => void>();
  #running = 0;

  constructor(max: number) {
    this.#max = max;
  }

  get waiting(): number {
    return this.#queue.size;
  }

  /** Work that has not begun when the signal aborts never begins: rejects with the signal's reason. */
  async run<T>(work: () => Promise<T>, signal?: AbortSignal): Promise<T> {
    signal?.throwIfAborted();
    if (this.#running >= this.#max) await this.#turn(signal);
    else this.#running++;
    try {
      signal?.throwIfAborted();
      return await work();
    } finally {
      // work that waits takes this work's place
      const [next] = this.#queue;
      if (next) next();
      else this.#running--;
    }
  }

  #turn(signal: AbortSignal | undefined): Promise<void> {
    return new Promise((resolve, reject) => {
      const leaveQueue = (then: () => void) => {
        this.#queue.delete(start);
        signal?.removeEventListener('abort', giveUp);
        then();
      };
      const start = () => leaveQueue(resolve);
      const giveUp = () => leaveQueue(() => reject(signal!.reason as Error));
      this.#queue.add(start);
      signal?.addEventListener('abort', giveUp, { once: true });
    });
  }
}
