/**
 * Watches whether canaries arrive, and how long they take: whatever holds up changes holds up
 * canaries too. Each canary states the interval between canaries. The leader's report states the
 * interval too, so that this gateway misses canaries even if none has ever arrived.
 */
import { type Batch, canariesOf } from '#shared/log/batch.ts';
import type { Log } from '#shared/process/logger.ts';
import type { GatewayMetrics } from '#shared/process/metrics.ts';

const lookMs = 250;
/** a canary is missed if it is late by one interval, but not before `minGraceMs` and at latest after `maxGraceMs` */
const minGraceMs = 1_000;
const maxGraceMs = 5_000;

interface CanaryWatchOptions {
  /** the interval that the leader reports, in ms; 0: the leader commits no canaries; null: no leader reports */
  reportedMs: () => number | null;
  log: Log;
  metrics: GatewayMetrics;
}

export class CanaryWatch {
  readonly #options: CanaryWatchOptions;
  #everyMs = 0;
  /** when the last canary arrived, or should have arrived */
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

  /** How long the last canary took, in ms; null: none has arrived. */
  get lastMs(): number | null {
    return this.#lastMs;
  }

  /** The last canary that should have arrived has not arrived. */
  get late(): boolean {
    return this.#late;
  }

  /** The feed calls this with each batch, after the hub has written the batch to sockets. */
  delivered(batch: Batch): void {
    for (const { atMs, everyMs } of canariesOf(batch)) {
      this.#lastMs = Math.max(0, Date.now() - atMs);
      this.#options.metrics.canarySeconds.observe(this.#lastMs / 1_000);
      this.#everyMs = everyMs;
      this.#since = performance.now();
      if (this.#late) this.#options.log.info({ ms: this.#lastMs }, 'canaries arrive again');
      this.#late = false;
    }
  }

  #look(now: number): void {
    const { metrics, log } = this.#options;
    const reportedMs = this.#options.reportedMs();
    if (reportedMs !== null && reportedMs !== this.#everyMs) {
      this.#everyMs = reportedMs;
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
    if (!this.#late) log.warn({ everyMs }, 'a canary did not arrive: changes may not arrive either');
    this.#late = true;
  }
}
