/**
 * Examines the data of Plank in the database: its schema, the capture of attached tables, the leader, the log and the
 * outbox.
 */
import { setTimeout as delay } from 'node:timers/promises';
import type { Client } from 'pg';
import { type Finding, fault, note, ok, span, warning } from './finding.ts';
import { examineOutbox, type Patience } from './outbox.ts';

/** The end of the log, and the names that clients use for the attached tables. */
export interface Captured {
  epoch: number;
  seq: number;
  tables: string[];
}

interface Limits extends Patience {
  retentionMs: number;
  retentionBytes: number;
}

const waitsTooLongMs = 5_000;
/** a listener that leads drains a committed change within this time */
const drainedWithinMs = 1_000;
/** when one listener follows another, no listener leads for a moment */
const succeededWithinMs = 1_000;

/** Examines the capture. If the database has no schema of this version, returns undefined. */
export async function* examineCapture(client: Client, limits: Limits): AsyncGenerator<Finding, Captured | undefined> {
  const migrated = await client.query<{ is: boolean }>(
    "select to_regclass('plank.leader') is not null and to_regclass('plank.catalog') is not null as is",
  );
  if (!migrated.rows[0]!.is) {
    yield fault(
      'the database has no schema "plank" of this version',
      'run "npm run migrate" with the same DATABASE_URL',
    );
    return undefined;
  }
  const tables = yield* examineTables(client);
  yield* examineLog(client, limits);
  return { ...(yield* examineLead(client)), tables };
}

async function* examineTables(client: Client): AsyncGenerator<Finding, string[]> {
  const { rows: problems } = await client.query<{ name: string; problem: string }>('select * from plank.check()');
  for (const { name, problem } of problems) {
    const [says, advice] = problem.split('; run: ');
    yield fault(`${name}: ${says}`, `run: ${advice}`);
  }
  const { rows: attached } = await client.query<{ name: string }>('select name from plank.attached order by id');
  const { rows } = await client.query<Record<string, string | null>>(`
    select (select count(*) from pg_event_trigger where evtname like 'plank%' and evtenabled not in ('D', 'R')) as follows,
      (select string_agg(distinct a.name, ', ') from plank.attached a join pg_subscription_rel s on s.srrelid = a.relation) as replicated,
      (select string_agg(distinct format('%s (%s)', a.name, p.proowner::regrole), ', ') from plank.attached a join pg_class c on c.oid = a.relation
       cross join plank.generated_functions(a.id) f join pg_proc p on p.oid = f where not pg_has_role(c.relowner, p.proowner, 'member')) as lent`);
  const { follows, replicated, lent } = rows[0]!;
  if (attached.length === 0) yield note('no table is attached', "run: select plank.attach('public.my_table')");
  else if (problems.length === 0) yield ok(`captured: ${attached.map(({ name }) => name).join(', ')}`);
  if (follows === '0')
    yield note(
      'Plank does not follow ALTER TABLE of attached tables: the role that migrated is no superuser',
      'after a table was altered, run plank.attach for it again',
    );
  if (lent !== null)
    yield note(
      `casts to json that table owners wrote run in the capture with the rights of the role that attached the table: ${lent}`,
      'if an owner must not have these rights, attach the table as a superuser',
    );
  if (replicated !== null)
    yield fault(
      `${replicated}: written by logical replication, which fires no statement triggers`,
      'attach the tables in the database that publishes them: changes that a subscription applies cannot be captured',
    );
  return attached.map(({ name }) => name);
}

interface Log {
  /** the age of the oldest changes that are kept; null: none are kept */
  oldestMs: number | null;
  bytes: number;
  waiting: number;
  waitsMs: number;
}

async function lookAtLog(client: Client): Promise<Log> {
  const { rows } = await client.query<Record<string, string | null>>(`
    select (select extract(epoch from clock_timestamp() - min(drained_at)) * 1000 from plank.log) as oldest_ms, l.log_bytes, w.waiting, w.waits_ms
    from plank.leader l cross join lateral (
      select count(*) as waiting, extract(epoch from clock_timestamp() - min(at)) * 1000 as waits_ms
      from (select b.at from plank.between(l.snap, pg_current_snapshot()) b limit 100000) b) w`);
  const row = rows[0]!;
  return {
    oldestMs: row.oldest_ms === null ? null : Number(row.oldest_ms),
    bytes: Number(row.log_bytes),
    waiting: Number(row.waiting),
    waitsMs: Number(row.waits_ms),
  };
}

async function* examineLog(client: Client, limits: Limits): AsyncGenerator<Finding> {
  let log = await lookAtLog(client);
  let drains = false;
  // The first changes of a long transaction are already old when the transaction commits.
  const until = performance.now() + drainedWithinMs;
  while (log.waitsMs > waitsTooLongMs && !drains && performance.now() < until) {
    await delay(200);
    ({ drains } = await lookAtLead(client));
    if (!drains) log = await lookAtLog(client);
  }
  const { waiting, waitsMs, oldestMs, bytes } = log;
  const count = waiting >= 100_000 ? 'more than 100,000' : waiting;
  const wait = `${count} ${waiting === 1 ? 'change waits' : 'changes wait'} to be drained, the oldest for ${span(waitsMs)}`;
  if (waiting === 0 || waitsMs <= waitsTooLongMs) yield ok('no change waits to be drained');
  else if (drains)
    yield note(`${wait}: a drain is at work`, 'so many changes take time; run the doctor again when it is done');
  else yield fault(wait, 'the leading listener drains the outbox: see whether one leads (below), and its log');
  if (oldestMs !== null && oldestMs > limits.retentionMs * 1.5 + 60_000)
    yield warning(
      `the log keeps changes of ${span(oldestMs)} ago, and should purge them after ${span(limits.retentionMs)}`,
      'the leading listener purges old changes; see its log for the reason why it does not',
    );
  yield* examineOutbox(client, { bytes, most: limits.retentionBytes }, limits);
}

interface Lead {
  holder: string | null;
  term: string;
  epoch: number;
  seq: number;
  /** whether the lease is valid */
  holds: boolean;
  /** how long ago the lease ended, in ms; null: there has been no lease yet */
  overMs: number | null;
  /**
   * whether a drain is at work that locks the leader's row: a large drain, or the first one of a term. The lease is
   * renewed only after such a drain.
   */
  drains: boolean;
  /** how long the drain has been at work, in ms; null: no drain is at work, or this role may not see it */
  drainsMs: number | null;
}

async function lookAtLead(client: Client): Promise<Lead> {
  const { rows } = await client.query<{ [column: string]: string | null } & { holds: boolean; drains: boolean }>(`
    select l.holder, l.term, l.epoch, l.next_seq, l.expires_at > clock_timestamp() as holds, d.drains, d.drains_ms,
      case when isfinite(l.expires_at) then extract(epoch from clock_timestamp() - l.expires_at) * 1000 end as over_ms
    from plank.leader l cross join (
      select count(*) > 0 as drains, max(extract(epoch from clock_timestamp() - a.query_start)) * 1000 as drains_ms
      from pg_locks k left join pg_stat_activity a on a.pid = k.pid
      where k.relation = 'plank.leader'::regclass and k.database = (select oid from pg_database where datname = current_database())
        and k.mode = 'RowShareLock' and k.granted and not exists (select from pg_locks w where w.pid = k.pid and not w.granted)) d`);
  const row = rows[0]!;
  return {
    holder: row['holder'] ?? null,
    term: row['term']!,
    epoch: Number(row['epoch']),
    seq: Number(row['next_seq']) - 1,
    holds: row.holds,
    overMs: row['over_ms'] === null ? null : Number(row['over_ms']),
    drains: row.drains,
    drainsMs: row['drains_ms'] === null ? null : Number(row['drains_ms']),
  };
}

async function* examineLead(client: Client): AsyncGenerator<Finding, Pick<Captured, 'epoch' | 'seq'>> {
  let lead = await lookAtLead(client);
  const until = performance.now() + succeededWithinMs;
  while (!lead.holds && !lead.drains && performance.now() < until) {
    await delay(200);
    lead = await lookAtLead(client);
  }
  const node = lead.holder?.split('/')[0];
  if (lead.holds) yield ok(`${node} leads (term ${lead.term})`);
  else if (lead.drains) {
    const since = lead.drainsMs === null ? '' : ` for ${span(lead.drainsMs)}`;
    yield ok(
      `${node} leads (term ${lead.term}), and has been draining${since}: its lease is renewed when that is done`,
    );
  } else {
    const since = lead.overMs === null ? '' : ` for ${span(lead.overMs)}`;
    const last = node ? `; the last leader was ${node}` : '';
    yield fault(
      `no listener leads${since}: changes wait${last}`,
      'start a listener (npm run listener), or see its log',
    );
  }
  return { epoch: lead.epoch, seq: lead.seq };
}
