/**
 * Commits a canary at a fixed interval while this listener leads. It uses its own connection, as any writer does, so
 * gateways measure with it what they would measure with a change.
 */

import type { Pool } from '#shared/postgres/postgres.ts';
import type { Log } from '#shared/process/logger.ts';
import type { ListenerMetrics } from '#shared/process/metrics.ts';
import { every } from '#shared/waiting.ts';

/**
 * Runs until the signal aborts; returns at once if `everyMs` is 0. A canary that could not be committed is counted,
 * and not made up for later.
 */
export async function sendCanaries(options: {
  pool: Pool;
  everyMs: number;
  log: Log;
  metrics: ListenerMetrics;
  signal: AbortSignal;
}): Promise<void> {
  const { pool, everyMs, log, metrics, signal } = options;
  if (everyMs === 0) return;
  let started = 0;
  const untilNext = () => Math.max(0, started + everyMs - performance.now());
  await every(
    everyMs,
    signal,
    async () => {
      started = performance.now();
      await pool.query('select plank.canary($1)', [everyMs]);
      metrics.canaries.inc();
      return untilNext();
    },
    (err) => {
      metrics.canaryFailures.inc();
      log.debug({ err }, 'could not commit a canary');
      return untilNext();
    },
  );
}
