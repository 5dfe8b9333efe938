/**
 * Commits a canary every few seconds while this listener leads: by a connection of its own, as any writer, so that what gateways
 * see of it is what they would see of a change.
 */

import type { Pool } from '#shared/postgres/postgres.ts';
import type { Log } from '#shared/process/logger.ts';
import type { ListenerMetrics } from '#shared/process/metrics.ts';
import { sleep } from '#shared/waiting.ts';

/** Runs until the signal aborts; at once done with `everyMs` 0. A canary that could not be committed is counted, and not made up for. */
export async function sendCanaries(options: {
  pool: Pool;
  everyMs: number;
  log: Log;
  metrics: ListenerMetrics;
  signal: AbortSignal;
}): Promise<void> {
  const { pool, everyMs, log, metrics, signal } = options;
  if (everyMs === 0) return;
  while (!signal.aborted) {
    const started = performance.now();
    try {
      await pool.query('select plank.canary($1)', [everyMs]);
      metrics.canaries.inc();
    } catch (error) {
      if (signal.aborted) return;
      metrics.canaryFailures.inc();
      log.debug({ err: error }, 'could not commit a canary');
    }
    await sleep(Math.max(0, started + everyMs - performance.now()), signal);
  }
}
