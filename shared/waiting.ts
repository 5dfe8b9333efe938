/**
 * Waiting and retrying. Every wait ends by its deadline or its signal. Every retry has full jitter, and its pause
 * starts small again after success.
 */

/** Resolves after `ms`, or at once when the signal aborts. Never rejects, so the caller must check the signal. */
export function sleep(ms: number, signal?: AbortSignal): Promise<void> {
  if (signal?.aborted) return Promise.resolve();
  return new Promise((resolve) => {
    const done = () => {
      clearTimeout(timer);
      signal?.removeEventListener('abort', done);
      resolve();
    };
    const timer = setTimeout(done, ms);
    signal?.addEventListener('abort', done, { once: true });
  });
}

/**
 * Runs `work` again and again until the signal aborts. The pause after a run is `ms`, or the number of ms that the run
 * returns. If a run rejects, the loop goes on: it calls `onError` with the error, unless the signal has aborted.
 * `onError` may return a pause too.
 */
export async function every(
  ms: number,
  signal: AbortSignal,
  work: () => Promise<number | void>,
  onError: (error: Error) => number | void,
): Promise<void> {
  while (!signal.aborted) {
    const pauseMs = await work().catch((error: Error) => (signal.aborted ? 0 : onError(error)));
    await sleep(pauseMs ?? ms, signal);
  }
}

/** If the promise has not settled after `ms`, rejects with the error of `onLate`, and ignores the promise's outcome. */
export async function withDeadlineOr<T>(promise: Promise<T>, ms: number, onLate: () => Error): Promise<T> {
  let timer: NodeJS.Timeout | undefined;
  promise.catch(() => {});
  try {
    return await Promise.race([
      promise,
      new Promise<never>((_, reject) => {
        timer = setTimeout(() => reject(onLate()), ms);
      }),
    ]);
  } finally {
    clearTimeout(timer);
  }
}

/** Whether the promise resolves within `ms`. Rejects if the promise rejects. */
export async function settlesWithin(promise: Promise<unknown>, ms: number): Promise<boolean> {
  let timer: NodeJS.Timeout | undefined;
  try {
    return await Promise.race([
      promise.then(() => true),
      new Promise<boolean>((resolve) => {
        timer = setTimeout(() => resolve(false), ms);
      }),
    ]);
  } finally {
    clearTimeout(timer);
  }
}

/** Wraps a start or a stop, so that it runs once even if it is called several times. All calls get the same result. */
export function once<T>(work: () => Promise<T>): () => Promise<T> {
  let result: Promise<T> | undefined;
  return () => (result ??= work());
}

export class Backoff {
  readonly #minMs: number;
  readonly #maxMs: number;
  readonly #random: () => number;
  #failures = 0;

  constructor(minMs: number, maxMs: number, random: () => number = Math.random) {
    this.#minMs = minMs;
    this.#maxMs = maxMs;
    this.#random = random;
  }

  /**
   * Returns the milliseconds to wait before the next try: a random number from `minMs` to a ceiling. The ceiling is 2 ×
   * `minMs` at first, so that clients that failed at the same time do not try again at the same time. The ceiling
   * doubles with each failure.
   */
  next(): number {
    const ceiling = Math.min(this.#maxMs, this.#minMs * 2 ** ++this.#failures);
    return this.#minMs + this.#random() * (ceiling - this.#minMs);
  }

  reset(): void {
    this.#failures = 0;
  }
}

/**
 * Wakes a loop that sleeps. `ring` ends the sleep in progress; if the loop does not sleep, its next sleep ends at once.
 */
export class Bell {
  #rung = false;
  #wake: (() => void) | undefined;

  ring(): void {
    this.#rung = true;
    this.#wake?.();
  }

  /** Resolves with true if the bell was rung. Resolves with false after `ms`, or when the signal aborts. */
  async wait(ms: number, signal: AbortSignal): Promise<boolean> {
    if (!this.#rung && !signal.aborted && ms > 0) {
      await new Promise<void>((resolve) => {
        const done = () => {
          clearTimeout(timer);
          signal.removeEventListener('abort', done);
          this.#wake = undefined;
          resolve();
        };
        const timer = setTimeout(done, ms);
        signal.addEventListener('abort', done, { once: true });
        this.#wake = done;
      });
    }
    const rung = this.#rung;
    this.#rung = false;
    return rung;
  }
}
