/**
 * Updates the gauges whose values only the leader knows: the changes that wait in the outbox, and the sizes
 * of the log and of the stream.
 */
import type { Publisher } from '#shared/log/fanout.ts';
import type { Pool } from '#shared/postgres/postgres.ts';
import type { Log } from '#shared/process/logger.ts';
import type { ListenerMetrics } from '#shared/process/metrics.ts';
import { every } from '#shared/waiting.ts';
import type { Publishing } from './publishing.ts';

/**
 * shorter than the time for which the pool keeps an idle connection, so that every round uses the same
 * connection
 */
const everyMs = 1_000;

/**
 * Runs until the signal aborts. A gauge is absent while its server (Postgres or Redis) does not answer, and
 * after the signal has aborted.
 */
export async function keepGauges(options: {
  pool: Pool;
  publisher: Publisher;
  publishing: Publishing;
  log: Log;
  metrics: ListenerMetrics;
  signal: AbortSignal;
}): Promise<void> {
  const { metrics, publishing, log, signal } = options;
  const onError = (err: Error) => log.debug({ err }, 'could not read the values of gauges');
  await every(
    everyMs,
    signal,
    async () => {
      metrics.streamLag.set(publishing.lag);
      const failures = await Promise.all([lookAtLog(options), lookAtStream(options)]);
      for (const error of failures) if (error && !signal.aborted) onError(error);
    },
    onError,
  );
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

/** Resolves with the error if Postgres did not answer. */
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

/** Resolves with the error if Redis did not answer. */
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
