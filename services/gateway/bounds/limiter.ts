/** Runs at most `max` pieces of work at once. Further work waits in the order of arrival. */

export class Limiter {
  readonly #max: number;
  /** in order of arrival; a Set, because leaving it takes the same short time even if thousands wait */
  readonly #queue = new Set<() => void>();
  #running = 0;

  constructor(max: number) {
    this.#max = max;
  }

  get waiting(): number {
    return this.#queue.size;
  }

  /** Runs `work` when it is its turn. If the signal aborts before that, rejects with the signal's reason. */
  async run<T>(work: () => Promise<T>, signal?: AbortSignal): Promise<T> {
    signal?.throwIfAborted();
    if (this.#running >= this.#max) await this.#turn(signal);
    else this.#running++;
    try {
      signal?.throwIfAborted();
      return await work();
    } finally {
      // the next work in the queue takes this work's place
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
