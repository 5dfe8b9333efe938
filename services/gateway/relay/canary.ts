/**
 * Watches whether canaries come, and how long they take: what would hold up a change holds them up too. The rhythm is what the last
 * one said, or the leader says of itself, so that one is missed also where none has ever come.
 */
import { type Batch, canariesOf } from '#shared/log/batch.ts';
import type { Log } from '#shared/process/logger.ts';
import type { GatewayMetrics } from '#shared/process/metrics.ts';

const lookMs = 250;
/** how much later than its time a canary may come: as long as its interval is, within these bounds */
const minGraceMs = 1_000;
const maxGraceMs = 5_000;

interface CanaryWatchOptions {
  /** how often the leader says that it commits one, in ms; 0: never; null: no leader is heard */
  told: () => number | null;
  log: Log;
  metrics: GatewayMetrics;
}

export class CanaryWatch {
  readonly #options: CanaryWatchOptions;
  #everyMs = 0;
  /** when the last one came, or should have */
  #since = 0;
  #lastMs: number | null = null;
  #late = false;
  #timer: NodeJS.Timeout | undefined;

  constructor(options: CanaryWatchOptions) {
    this.#options = options;
  }

  start(): void {
    this.#timer = setInterval(() => this.#look(performance.now()), lookMs);
  }

  stop(): void {
    clearInterval(this.#timer);
  }

  /** How long the last one took, in ms; null: none has come. */
  get lastMs(): number | null {
    return this.#lastMs;
  }

  /** The last one that should have come has not. */
  get late(): boolean {
    return this.#late;
  }

  /** To be told of each batch when its changes have been written to sockets. */
  passed(batch: Batch): void {
    for (const { atMs, everyMs } of canariesOf(batch)) {
      this.#lastMs = Math.max(0, Date.now() - atMs);
      this.#options.metrics.canarySeconds.observe(this.#lastMs / 1_000);
      this.#everyMs = everyMs;
      this.#since = performance.now();
      if (this.#late) this.#options.log.info({ ms: this.#lastMs }, 'canaries come again');
      this.#late = false;
    }
  }

  #look(now: number): void {
    const { told, metrics, log } = this.#options;
    const toldMs = told();
    if (toldMs !== null && toldMs !== this.#everyMs) {
      this.#everyMs = toldMs;
      this.#since = now;
    }
    const everyMs = this.#everyMs;
    if (everyMs === 0) {
      this.#late = false;
      return;
    }
    const graceMs = Math.min(maxGraceMs, Math.max(minGraceMs, everyMs));
    if (now - this.#since < everyMs + graceMs) return;
    this.#since += everyMs;
    metrics.canariesMissed.inc();
    if (!this.#late) log.warn({ everyMs }, 'a canary did not come: changes may not arrive');
    this.#late = true;
  }
}
