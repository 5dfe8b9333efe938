/** Counts what the hub delivers and measures how long changes take: metrics, and figures for operators. */
import { type Batch, BatchReader, canariesOf, drainedAtOf } from '#shared/log/batch.ts';
import type { GatewayMetrics } from '#shared/process/metrics.ts';
import { LagWindow } from './lag-window.ts';

export class DeliveryStats {
  readonly #metrics: GatewayMetrics;
  /** changes since the start */
  changes = 0;
  /** writes of one change to one live client, since the start */
  deliveries = 0;
  /** for each batch, the time from the capture of its first change until the batch was written */
  readonly lag = new LagWindow();

  constructor(metrics: GatewayMetrics) {
    this.#metrics = metrics;
  }

  /** Called after a batch was written to the live clients. `receivedAtMs`: when it arrived here, in ms since 1970. */
  record(batch: Batch, receivedAtMs: number, deliveries: number): void {
    const metrics = this.#metrics;
    metrics.seq.set(batch.lastSeq);
    metrics.deliveries.inc(deliveries);
    this.deliveries += deliveries;
    const changes = batch.lastSeq - batch.firstSeq + 1 - canariesOf(batch).length;
    if (changes === 0) return;
    this.changes += changes;
    metrics.events.inc(changes);
    const reader = new BatchReader(batch);
    reader.next();
    const now = Date.now();
    const drainedAtMs = drainedAtOf(batch);
    const observe = (stage: string, fromMs: number, toMs: number) =>
      metrics.lag.observe({ stage }, Math.max(0, toMs - fromMs) / 1_000);
    if (drainedAtMs > 0) {
      observe('capture', reader.atMs, drainedAtMs);
      observe('publish', drainedAtMs, receivedAtMs);
    }
    observe('fanout', receivedAtMs, now);
    observe('total', reader.atMs, now);
    this.lag.record(Math.max(0, now - reader.atMs), performance.now());
  }
}
