/**
 * Whether this replica accepts clients, and how it sends its clients away.
 *
 *   serving    accepts clients
 *   draining   accepts no clients; warns its clients, and closes them over the window (WebSockets
 *              with code 1012)
 *   drained    accepts no clients and has none; still answers REST requests that reach it
 *
 * `drain` (SIGTERM, or an operator) leads from serving to draining, which ends in drained. `undrain`
 * (an operator) leads from draining and from drained back to serving.
 */
import type { Log } from '#shared/process/logger.ts';
import type { Clients } from '../clients/clients.ts';
import { depart, shuffled } from './departure.ts';

/** at least this many clients are closed in a second, so that few clients do not need the whole window */
const leastPerSecond = 100;

interface DrainingOptions {
  clients: Clients;
  windowMs: number;
  log: Log;
  /** called when the state has changed */
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

  /** Resolves when the last client has been closed, or after `undrain`. Further calls join a drain in progress. */
  drain(): Promise<void> {
    if (this.#state === 'serving') {
      this.#abort = new AbortController();
      this.#move('draining');
      this.#done = this.#run(this.#abort.signal);
    }
    return this.#done;
  }

  /** Accepts clients again. Clients that have not been closed yet stay. */
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
