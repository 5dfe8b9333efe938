/**
 * Whether this replica accepts clients, and how it gets rid of those it has.
 *
 *   serving    accepts clients
 *   draining   accepts nobody; its clients are warned, and closed with 1012 over the window
 *   drained    accepts nobody and has no clients; other requests that still reach it are answered
 *
 * `drain` (SIGTERM, or an operator) moves it from serving on; `undrain` (an operator) moves it back
 * to serving, from either.
 */
import type { Log } from '#shared/process/logger.ts';
import type { Clients } from '../clients/clients.ts';
import { depart, shuffled } from './departure.ts';

/** at least this many clients are closed in a second, so that few clients do not take the whole window */
const leastPerSecond = 100;

interface DrainingOptions {
  clients: Clients;
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

  /** Accepts clients again; those that have not been closed yet stay. */
  undrain(): void {
    if (this.#state === 'serving') return;
    this.#abort.abort();
    this.#move('serving');
  }

  async #run(signal: AbortSignal): Promise<void> {
    const { clients, windowMs } = this.#options;
    const leaving = shuffled(clients);
    const overMs = Math.min(windowMs, (leaving.length * 1_000) / leastPerSecond);
    await depart(leaving, { overMs, reason: 'this replica stops, come back', signal });
    if (!signal.aborted) this.#move('drained');
  }

  #move(state: Draining['state']): void {
    const { clients, log, onChange } = this.#options;
    this.#state = state;
    clients.isLeaving = state !== 'serving';
    log.info({ state }, 'draining has changed');
    onChange();
  }
}
