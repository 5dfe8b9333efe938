/**
 * Whether this replica takes clients, and how it gets rid of those it has.
 *
 *   serving    as ever
 *   draining   takes nobody; its clients are told to come back, and closed with 1012 over the window
 *   drained    takes nobody and has nobody; requests that still reach it are answered
 *
 * `drain` (SIGTERM, an operator) moves it on, `undrain` (an operator) back, from either.
 */
import type { Log } from '#shared/process/logger.ts';
import { depart, type Guest, shuffled } from './departure.ts';

/** few clients need no whole window: at least so many are closed in a second */
const leastPerSecond = 100;

interface DrainingOptions {
  /** of each transport */
  guests: () => readonly Iterable<Guest>[];
  windowMs: number;
  log: Log;
  /** the state has changed */
  onChange: () => void;
}

export class Draining {
  readonly #options: DrainingOptions;
  #state: 'serving' | 'draining' | 'drained' = 'serving';
  #abort = new AbortController();
  #done: Promise<void> = Promise.resolve();

  constructor(options: DrainingOptions) {
    this.#options = options;
  }

  get state(): 'serving' | 'draining' | 'drained' {
    return this.#state;
  }

  /** Resolves when the last client has been closed, or `undrain` was called. Further calls join the first. */
  drain(): Promise<void> {
    if (this.#state === 'serving') {
      this.#abort = new AbortController();
      this.#move('draining');
      this.#done = this.#run(this.#abort.signal);
    }
    return this.#done;
  }

  /** Takes clients again; those that have not been closed yet stay. */
  undrain(): void {
    if (this.#state === 'serving') return;
    this.#abort.abort();
    this.#move('serving');
  }

  async #run(signal: AbortSignal): Promise<void> {
    const { guests, windowMs } = this.#options;
    const leaving = shuffled(guests().flatMap((each) => Array.from(each)));
    const overMs = Math.min(windowMs, (leaving.length * 1_000) / leastPerSecond);
    await depart(leaving, { overMs, why: 'this replica stops, come back', signal });
    if (!signal.aborted) this.#move('drained');
  }

  #move(state: Draining['state']): void {
    this.#state = state;
    this.#options.log.info({ state }, 'draining has changed');
    this.#options.onChange();
  }
}
