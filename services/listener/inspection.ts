/**
 * Runs plank.check() once a minute while this listener leads, and logs problems with the capture of
 * attached tables.
 */

import { limited, type Pool } from '#shared/postgres/postgres.ts';
import type { Log } from '#shared/process/logger.ts';
import type { ListenerMetrics } from '#shared/process/metrics.ts';
import { every } from '#shared/waiting.ts';

const everyMs = 60_000;

/** Runs until the signal aborts. A problem is logged when it appears, not each time it is found again. */
export async function inspectCapture(options: {
  pool: Pool;
  log: Log;
  metrics: ListenerMetrics;
  signal: AbortSignal;
}): Promise<void> {
  const { pool, log, metrics, signal } = options;
  await warnOfRestoredDump(pool, log);
  let known = new Set<string>();
  await every(
    everyMs,
    signal,
    async () => {
      const { rows } = await pool.query<{ name: string; problem: string }>(
        limited(5_000, 'select name, problem from plank.check()'),
      );
      metrics.captureProblems.set(rows.length);
      for (const { name, problem } of rows) {
        if (!known.has(problem)) log.error({ table: name, problem }, 'a table is not captured as it should be');
      }
      known = new Set(rows.map((row) => row.problem));
    },
    (err) => log.debug({ err }, 'could not run plank.check()'),
  );
}

async function warnOfRestoredDump(pool: Pool, log: Log): Promise<void> {
  try {
    const { rows } = await pool.query<{ name: string }>(
      limited(5_000, 'select name from plank.attached where moved order by id'),
    );
    if (rows.length > 0)
      log.warn(
        { tables: rows.map(({ name }) => name) },
        'this database is a restored dump: run "select * from plank.check()", and attach its tables again',
      );
  } catch (error) {
    log.debug({ err: error }, 'could not find out whether this database is a restored dump');
  }
}
