/**
 * Purges changes past the retention time or size, in batches with pauses, so that purging never competes with a drain
 * for long. Postgres cancels a round that takes too long; the next round has a smaller batch. Rounds never overlap.
 */

import type { Pool } from '#shared/postgres/postgres.ts';
import type { ListenerConfig } from '#shared/process/config.ts';
import type { Log } from '#shared/process/logger.ts';
import type { ListenerMetrics } from '#shared/process/metrics.ts';
import { every } from '#shared/waiting.ts';

/** rows deleted in one round; each failure halves the number, each success doubles it again */
const maxBatch = 5_000;
const minBatch = 50;
/** the pause between two rounds while there is more to purge */
const breathMs = 20;

/** Runs until the signal aborts. A failure is logged, and the next round tries again. */
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
  await every(
    roundMs,
    signal,
    async () => {
      const { rows } = await pool.query<{ deleted: string }>('select plank.purge($1, $2, $3, $4) as deleted', [
        term,
        `${config.RETENTION_MS} ms`,
        config.RETENTION_BYTES,
        batch,
      ]);
      batch = Math.min(maxBatch, batch * 2);
      const deleted = Number(rows[0]!.deleted);
      metrics.purged.inc(deleted);
      return deleted > 0 ? breathMs : roundMs;
    },
    (err) => {
      batch = Math.max(minBatch, Math.floor(batch / 2));
      log.warn({ err }, 'could not purge old changes, trying again');
    },
  );
}
