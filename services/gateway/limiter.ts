/** Lets only so many of some work run at once; the rest waits in the order in which it came. */

export class Limiter {
  readonly #max: number;
  readonly #waiting: (() => void)[] = [];
  #running = 0;

  constructor(max: number) {
    this.#max = max;
  }

  async run<T>(work: () => Promise<T>): Promise<T> {
    if (this.#running >= this.#max) await new Promise<void>((resolve) => this.#waiting.push(resolve));
    else this.#running++;
    try {
      return await work();
    } finally {
      // a waiting one takes this one's place
      const next = this.#waiting.shift();
      if (next) next();
      else this.#running--;
    }
  }
}
