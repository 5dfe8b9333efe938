/** Keeps the gauges up to date that only the leader knows: what waits in the outbox, what log and stream hold. */
import type { Publisher } from '#shared/log/fanout.ts';
import type { Pool } from '#shared/postgres/postgres.ts';
import type { Log } from '#shared/process/logger.ts';
import type { ListenerMetrics } from '#shared/process/metrics.ts';
import { sleep } from '#shared/waiting.ts';
import type { Publishing } from './publishing.ts';

/** less than the pool keeps an idle connection for, so that it is the same one each time */
const everyMs = 1_000;

/** Runs until the signal aborts; from then on, and while nobody answers, the gauges are absent. */
export async function keepGauges(options: {
  pool: Pool;
  publisher: Publisher;
  publishing: Publishing;
  log: Log;
  metrics: ListenerMetrics;
  signal: AbortSignal;
}): Promise<void> {
  const { metrics, publishing, log, signal } = options;
  while (!signal.aborted) {
    metrics.streamLag.set(publishing.lag);
    const failures = await Promise.all([lookAtLog(options), lookAtStream(options)]);
    for (const err of failures) if (err && !signal.aborted) log.debug({ err }, 'could not look at what gauges show');
    await sleep(everyMs, signal);
  }
  for (const gauge of [metrics.streamLag, ...logGauges(metrics), ...streamGauges(metrics)]) gauge.remove();
}

const logGauges = (metrics: ListenerMetrics) =>
  [
    metrics.outboxDepth,
    metrics.outboxOldest,
    metrics.notifyQueue,
    metrics.logOldest,
    metrics.logEvents,
    metrics.logBytes,
  ] as const;

const streamGauges = (metrics: ListenerMetrics) => [metrics.streamEntries, metrics.streamBytes] as const;

/** Resolves with why the numbers are not known. */
async function lookAtLog({ pool, metrics }: { pool: Pool; metrics: ListenerMetrics }): Promise<Error | null> {
  const gauges = logGauges(metrics);
  try {
    const { rows } = await pool.query<Record<string, string>>(
      'select outbox_depth, outbox_oldest, notify_queue, log_oldest, log_events, log_bytes from plank.gauges()',
    );
    for (const [i, value] of Object.values(rows[0]!).entries()) gauges[i]!.set(Number(value));
    return null;
  } catch (error) {
    for (const gauge of gauges) gauge.remove();
    return error as Error;
  }
}

/** Resolves with why the numbers are not known. */
async function lookAtStream({
  publisher,
  metrics,
}: {
  publisher: Publisher;
  metrics: ListenerMetrics;
}): Promise<Error | null> {
  try {
    const { entries, bytes } = await publisher.size();
    metrics.streamEntries.set(entries);
    metrics.streamBytes.set(bytes);
    return null;
  } catch (error) {
    for (const gauge of streamGauges(metrics)) gauge.remove();
    return error as Error;
  }
}
