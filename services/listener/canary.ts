/**
 * Commits a canary at a fixed interval while this listener leads. It commits the canary as a writer commits
 * a change, and not on the leader's own connection. So the delay that gateways measure for a canary is the
 * delay of a change.
 */

import type { Pool } from '#shared/postgres/postgres.ts';
import type { Log } from '#shared/process/logger.ts';
import type { ListenerMetrics } from '#shared/process/metrics.ts';
import { every } from '#shared/waiting.ts';

/**
 * Runs until the signal aborts; returns at once if `everyMs` is 0. If a canary cannot be committed, the
 * failure is counted, and no other canary takes its place.
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
