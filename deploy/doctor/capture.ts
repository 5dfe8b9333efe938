/** What Plank keeps in the database: its schema, the capture of the attached tables, who leads, and how the outbox grows. */
import { setTimeout as delay } from 'node:timers/promises';
import type { Client } from 'pg';
import { type Finding, fault, note, ok, span, warning } from './finding.ts';
import { examineOutbox, type Patience } from './outbox.ts';

/** Where the log ends, and what clients call the tables that it is about. */
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
/** by a listener that leads */
const drainedWithinMs = 1_000;
/** the lead is nobody's for a moment where one listener follows another */
const succeededWithinMs = 1_000;

/** Returns undefined where there is no schema of Plank's. */
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
       cross join plank.functions(a.id) f join pg_proc p on p.oid = f where not pg_has_role(c.relowner, p.proowner, 'member')) as lent`);
  const { follows, replicated, lent } = rows[0]!;
  if (attached.length === 0) yield note('no table is attached', "run: select plank.attach('public.my_table')");
  else if (problems.length === 0) yield ok(`captured: ${attached.map(({ name }) => name).join(', ')}`);
  if (follows === '0')
    yield note(
      'changes of attached tables (ALTER TABLE) are not followed by themselves: the role that migrated is no superuser',
      'run plank.attach again for a table after it was altered',
    );
  if (lent !== null)
    yield note(
      `code of the owners of tables (casts of their types to json) runs in the capture with the rights of who attached them: ${lent}`,
      'where an owner is not trusted with these rights, attach his table as a superuser',
    );
  if (replicated !== null)
    yield fault(
      `${replicated}: logical replication writes here, and fires no triggers of statements`,
      'attach the tables where they are written: what a subscription applies cannot be captured',
    );
  return attached.map(({ name }) => name);
}

interface Log {
  /** of the oldest changes that are kept; null: none are */
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
  const is = rows[0]!;
  return {
    oldestMs: is.oldest_ms === null ? null : Number(is.oldest_ms),
    bytes: Number(is.log_bytes),
    waiting: Number(is.waiting),
    waitsMs: Number(is.waits_ms),
  };
}

async function* examineLog(client: Client, limits: Limits): AsyncGenerator<Finding> {
  let is = await lookAtLog(client);
  let drains = false;
  // what a long transaction wrote at its beginning is old as soon as it commits
  const until = performance.now() + drainedWithinMs;
  while (is.waitsMs > waitsTooLongMs && !drains && performance.now() < until) {
    await delay(200);
    ({ drains } = await lookAtLead(client));
    if (!drains) is = await lookAtLog(client);
  }
  const { waiting, waitsMs, oldestMs, bytes } = is;
  const wait = `${waiting >= 100_000 ? 'more than 100,000' : waiting} changes wait to be told, the oldest for ${span(waitsMs)}`;
  if (waiting === 0 || waitsMs <= waitsTooLongMs) yield ok('no change waits to be told');
  else if (drains)
    yield note(`${wait}: they are being drained`, 'so many at once take their time; see it again when that is done');
  else yield fault(wait, 'see whether a listener leads (below), and its log: it drains the outbox');
  if (oldestMs !== null && oldestMs > limits.retentionMs * 1.5 + 60_000)
    yield warning(
      `the log keeps changes of ${span(oldestMs)} ago, and should forget after ${span(limits.retentionMs)}`,
      'a listener that leads forgets old changes; see its log for why it does not',
    );
  yield* examineOutbox(client, { bytes, most: limits.retentionBytes }, limits);
}

interface Lead {
  holder: string | null;
  term: string;
  epoch: number;
  seq: number;
  /** its lease holds */
  holds: boolean;
  /** since the lease is over; null: it never began */
  overMs: number | null;
  /** a large drain is at work, or the first of a term: it has the row locked until it is done, and the lease is renewed only then */
  drains: boolean;
  /** null: not known to this role, or none */
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
  const is = rows[0]!;
  return {
    holder: is['holder'] ?? null,
    term: is['term']!,
    epoch: Number(is['epoch']),
    seq: Number(is['next_seq']) - 1,
    holds: is.holds,
    overMs: is['over_ms'] === null ? null : Number(is['over_ms']),
    drains: is.drains,
    drainsMs: is['drains_ms'] === null ? null : Number(is['drains_ms']),
  };
}

async function* examineLead(client: Client): AsyncGenerator<Finding, Pick<Captured, 'epoch' | 'seq'>> {
  let is = await lookAtLead(client);
  const until = performance.now() + succeededWithinMs;
  while (!is.holds && !is.drains && performance.now() < until) {
    await delay(200);
    is = await lookAtLead(client);
  }
  const node = is.holder?.split('/')[0];
  if (is.holds) yield ok(`${node} leads (term ${is.term})`);
  else if (is.drains) {
    const since = is.drainsMs === null ? '' : ` for ${span(is.drainsMs)}`;
    yield ok(`${node} leads (term ${is.term}), and has been draining${since}: its lease is renewed when that is done`);
  } else {
    const since = is.overMs === null ? '' : ` for ${span(is.overMs)}`;
    const last = node ? `; the last one was ${node}` : '';
    yield fault(
      `no listener leads${since}: changes wait${last}`,
      'start a listener (npm run listener), or see its log',
    );
  }
  return { epoch: is.epoch, seq: is.seq };
}
