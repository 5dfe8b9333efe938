/**
 * Forgets what is past the retention time or size, in batches with pauses, so that it never competes with a drain for long. A
 * round that the pool's server ends, as it takes too long, is begun again with a smaller batch, and never beside itself.
 */

import type { Pool } from '#shared/postgres/postgres.ts';
import type { ListenerConfig } from '#shared/process/config.ts';
import type { Log } from '#shared/process/logger.ts';
import type { ListenerMetrics } from '#shared/process/metrics.ts';
import { sleep } from '#shared/waiting.ts';

/** rows that go in one round; fewer where that takes too long */
const maxBatch = 5_000;
const minBatch = 50;

/** Runs until the signal aborts. A failure is logged and tried again on the next round. */
export async function keepRetention(options: {
  pool: Pool;
  term: number;
  config: ListenerConfig;
  log: Log;
  metrics: ListenerMetrics;
  signal: AbortSignal;
}): Promise<void> {
  const { pool, term, config, log, metrics, signal } = options;
  const roundMs = Math.min(10_000, config.RETENTION_MS / 4);
  let batch = maxBatch;
  while (!signal.aborted) {
    let pauseMs = roundMs;
    try {
      const { rows } = await pool.query<{ gone: string }>('select plank.forget($1, $2, $3, $4) as gone', [
        term,
        `${config.RETENTION_MS} ms`,
        config.RETENTION_BYTES,
        batch,
      ]);
      batch = Math.min(maxBatch, batch * 2);
      const gone = Number(rows[0]!.gone);
      metrics.forgotten.inc(gone);
      if (gone > 0) pauseMs = 20;
    } catch (error) {
      batch = Math.max(minBatch, Math.floor(batch / 2));
      if (!signal.aborted) log.warn({ err: error }, 'could not forget old changes, trying again');
    }
    await sleep(pauseMs, signal);
  }
}
