/**
 * Examines whether vacuum keeps up with deletions from the outbox. After a burst, there is much to clean up at once,
 * and autovacuum starts only within autovacuum_naptime. So much garbage is a problem only after that time.
 */
import { setTimeout as delay } from 'node:timers/promises';
import type { Client } from 'pg';
import { type Finding, note, ok, size, span, warning } from './finding.ts';

/** how long after autovacuum_naptime a vacuum may take to start and to appear in the statistics */
const slackMs = 15_000;
const lookEachMs = 1_000;

export interface Patience {
  /**
   * whether to wait for vacuum if there is much to clean up. The wait is autovacuum_naptime and 15 s, unless
   * `vacuumWithinMs` is given.
   */
  patient?: boolean;
  vacuumWithinMs?: number;
  /** how much garbage may be on disk, in bytes: 1 GiB unless given */
  toleratedBytes?: number;
  /** called with a text that says what the examination waits for */
  say?: (text: string) => void;
}

interface Look {
  onDisk: number;
  /** an estimate of the bytes of deleted rows whose space cannot be reused yet */
  dead: number;
  vacuums: number;
  isVacuuming: boolean;
  naptimeMs: number;
}

async function look(client: Client): Promise<Look> {
  const { rows } = await client.query<Record<string, string>>(`
    select pg_total_relation_size(t.relid) as on_disk, t.n_dead_tup as dead, t.n_live_tup as live, t.vacuum_count + t.autovacuum_count as vacuums,
      exists (select from pg_stat_progress_vacuum p where p.relid = t.relid)::text as vacuuming,
      extract(epoch from current_setting('autovacuum_naptime')::interval) * 1000 as naptime_ms
    from pg_stat_all_tables t where t.relid = 'plank.outbox'::regclass`);
  const row = rows[0]!;
  const [onDisk, dead, live] = [Number(row.on_disk), Number(row.dead), Number(row.live)];
  return {
    onDisk,
    dead: dead === 0 ? 0 : (onDisk * dead) / (dead + live),
    vacuums: Number(row.vacuums),
    isVacuuming: row.vacuuming === 'true',
    naptimeMs: Number(row.naptime_ms),
  };
}

/** Examines the outbox. `kept`: how many bytes the log holds, and how many it may hold. */
export async function* examineOutbox(
  client: Client,
  kept: { bytes: number; most: number },
  { patient = false, vacuumWithinMs, toleratedBytes = 1024 ** 3, say = () => {} }: Patience,
): AsyncGenerator<Finding> {
  const first = await look(client);
  let now = first;
  const isWell = () => now.dead <= toleratedBytes || now.isVacuuming;
  const waitMs = vacuumWithinMs ?? first.naptimeMs + slackMs;
  if (patient && !isWell()) {
    say(`waiting up to ${span(waitMs)} for a vacuum of plank.outbox …`);
    const until = performance.now() + waitMs;
    while (!isWell() && now.vacuums === first.vacuums && performance.now() < until) {
      await delay(Math.min(lookEachMs, waitMs / 5));
      now = await look(client);
    }
  }
  const garbage = `about ${size(now.dead)} of deleted changes of ${size(now.onDisk)} on disk`;
  if (now.isVacuuming) yield ok(`vacuum is cleaning up plank.outbox: ${garbage}`);
  else if (isWell())
    yield ok(`the log holds ${size(kept.bytes)} of at most ${size(kept.most)}, ${size(now.onDisk)} on disk`);
  else if (now.vacuums > first.vacuums)
    yield warning(
      `vacuum ran on plank.outbox and could not remove ${garbage}`,
      'something keeps vacuum from removing them: an old transaction (pg_stat_activity), a prepared one (pg_prepared_xacts), a standby or a replication slot (pg_replication_slots)',
    );
  else if (patient)
    yield warning(
      `no vacuum of plank.outbox within ${span(waitMs)}: ${garbage}`,
      'see whether autovacuum is on, and has free workers (autovacuum_max_workers, pg_stat_progress_vacuum)',
    );
  else
    yield note(
      `vacuum has not cleaned up plank.outbox yet: ${garbage}`,
      'after a burst it starts within about a minute; run the doctor without --quick to wait for it',
    );
}
