/** Forgets what is past the retention time or size, in batches with pauses, so that it never competes with a drain for long. */
import type { ListenerConfig } from '#shared/config.ts';
import type { Log } from '#shared/log.ts';
import type { ListenerMetrics } from '#shared/metrics.ts';
import { limited, type Pool } from '#shared/postgres.ts';
import { sleep } from '#shared/retry.ts';

const batchRows = 5_000;
/** shorter than a process may take to stop */
const deadlineMs = 5_000;

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
  while (!signal.aborted) {
    let pauseMs = roundMs;
    try {
      const { rows } = await pool.query<{ gone: string }>(
        limited(deadlineMs, 'select plank.forget($1, $2, $3, $4) as gone', [
          term,
          `${config.RETENTION_MS} ms`,
          config.RETENTION_BYTES,
          batchRows,
        ]),
      );
      const gone = Number(rows[0]!.gone);
      metrics.forgotten.inc(gone);
      if (gone > 0) pauseMs = 20;
    } catch (error) {
      if (!signal.aborted) log.warn({ err: error }, 'could not forget old changes, trying again');
    }
    await sleep(pauseMs, signal);
  }
}
