/**
 * Whether vacuum keeps up with what is deleted from the outbox. A burst leaves much to clean up at once, and vacuum comes within
 * autovacuum_naptime: only where it has had that time is something wrong.
 */
import { setTimeout as delay } from 'node:timers/promises';
import type { Client } from 'pg';
import { type Finding, note, ok, size, span, warning } from './finding.ts';

/** beyond the interval of autovacuum, until it has begun and says so */
const slackMs = 15_000;
const lookEachMs = 1_000;

export interface Patience {
  /** wait for vacuum to come by, where much is to be cleaned up; once and a quarter autovacuum_naptime, unless given */
  patient?: boolean;
  vacuumWithinMs?: number;
  /** what may lie on disk and be of no use, in bytes: 1 GiB unless given */
  toleratedBytes?: number;
  /** what is being waited for */
  say?: (text: string) => void;
}

interface Look {
  onDisk: number;
  /** about how much of that is deleted rows that nothing can take the place of yet */
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
  const is = rows[0]!;
  const [onDisk, dead, live] = [Number(is.on_disk), Number(is.dead), Number(is.live)];
  return {
    onDisk,
    dead: dead === 0 ? 0 : (onDisk * dead) / (dead + live),
    vacuums: Number(is.vacuums),
    isVacuuming: is.vacuuming === 'true',
    naptimeMs: Number(is.naptime_ms),
  };
}

/** `kept`: that the log holds, in bytes, and may hold. */
export async function* examineOutbox(
  client: Client,
  kept: { bytes: number; most: number },
  { patient = false, vacuumWithinMs, toleratedBytes = 1024 ** 3, say = () => {} }: Patience,
): AsyncGenerator<Finding> {
  const first = await look(client);
  let is = first;
  const isWell = () => is.dead <= toleratedBytes || is.isVacuuming;
  const waitMs = vacuumWithinMs ?? first.naptimeMs + slackMs;
  if (patient && !isWell()) {
    say(`waiting up to ${span(waitMs)} for vacuum to come by plank.outbox …`);
    const until = performance.now() + waitMs;
    while (!isWell() && is.vacuums === first.vacuums && performance.now() < until) {
      await delay(Math.min(lookEachMs, waitMs / 5));
      is = await look(client);
    }
  }
  const garbage = `about ${size(is.dead)} of deleted changes of ${size(is.onDisk)} on disk`;
  if (is.isVacuuming) yield ok(`vacuum is cleaning up plank.outbox: ${garbage}`);
  else if (isWell())
    yield ok(`the log holds ${size(kept.bytes)} of at most ${size(kept.most)}, ${size(is.onDisk)} on disk`);
  else if (is.vacuums > first.vacuums)
    yield warning(
      `vacuum came by plank.outbox and had to leave ${garbage}`,
      'something keeps it from cleaning up: an old transaction (pg_stat_activity), a prepared one (pg_prepared_xacts), a standby or a replication slot (pg_replication_slots)',
    );
  else if (patient)
    yield warning(
      `vacuum does not come by plank.outbox within ${span(waitMs)}: ${garbage}`,
      'see whether autovacuum is on, and has workers free (autovacuum_max_workers, pg_stat_progress_vacuum)',
    );
  else
    yield note(
      `vacuum has yet to clean up plank.outbox: ${garbage}`,
      'after a burst it comes within a minute or so; leave out --quick, and whether it comes is waited for',
    );
}
