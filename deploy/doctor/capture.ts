/** What Plank keeps in the database: its schema, the capture of the attached tables, who leads, and how the outbox grows. */
import { setTimeout as delay } from 'node:timers/promises';
import type { Client } from 'pg';
import { type Finding, fault, note, ok, size, span, warning } from './finding.ts';

/** Where the log ends, and what clients call the tables that it is about. */
export interface Captured {
  epoch: number;
  seq: number;
  tables: string[];
}

interface Limits {
  retentionMs: number;
  retentionBytes: number;
}

const waitsTooLongMs = 5_000;
/** by a listener that leads */
const drainedWithinMs = 1_000;

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
      (select string_agg(distinct a.name, ', ') from plank.attached a join pg_subscription_rel s on s.srrelid = a.relation) as replicated`);
  const { follows, replicated } = rows[0]!;
  if (attached.length === 0) yield note('no table is attached', "run: select plank.attach('public.my_table')");
  else if (problems.length === 0) yield ok(`captured: ${attached.map(({ name }) => name).join(', ')}`);
  if (follows === '0')
    yield note(
      'changes of attached tables (ALTER TABLE) are not followed by themselves: the role that migrated is no superuser',
      'run plank.attach again for a table after it was altered',
    );
  if (replicated !== null)
    yield fault(
      `${replicated}: logical replication writes here, and fires no triggers of statements`,
      'attach the tables where they are written: what a subscription applies cannot be captured',
    );
  return attached.map(({ name }) => name);
}

async function lookAtLog(client: Client): Promise<Record<string, string | null>> {
  const { rows } = await client.query<Record<string, string | null>>(`
    select (select extract(epoch from clock_timestamp() - min(drained_at)) * 1000 from plank.log) as oldest_ms, l.log_bytes,
      pg_total_relation_size('plank.outbox') as outbox_bytes, w.waiting, w.waits_ms
    from plank.leader l cross join lateral (
      select count(*) as waiting, extract(epoch from clock_timestamp() - min(at)) * 1000 as waits_ms
      from (select b.at from plank.between(l.snap, pg_current_snapshot()) b limit 100000) b) w`);
  return rows[0]!;
}

async function* examineLog(client: Client, limits: Limits): AsyncGenerator<Finding> {
  let is = await lookAtLog(client);
  if (Number(is.waits_ms) > waitsTooLongMs) {
    // what a long transaction wrote at its beginning is old as soon as it commits
    await delay(drainedWithinMs);
    is = await lookAtLog(client);
  }
  const [waiting, waitsMs] = [Number(is.waiting), Number(is.waits_ms)];
  if (waiting > 0 && waitsMs > waitsTooLongMs)
    yield fault(
      `${waiting >= 100_000 ? 'more than 100,000' : waiting} changes wait to be told, the oldest for ${span(waitsMs)}`,
      'see whether a listener leads (below), and its log: it drains the outbox',
    );
  else yield ok('no change waits to be told');
  const oldestMs = Number(is.oldest_ms);
  if (oldestMs > limits.retentionMs * 1.5 + 60_000)
    yield warning(
      `the log keeps changes of ${span(oldestMs)} ago, and should forget after ${span(limits.retentionMs)}`,
      'a listener that leads forgets old changes; see its log for why it does not',
    );
  const [bytes, outbox] = [Number(is.log_bytes), Number(is.outbox_bytes)];
  const bloated = outbox > 1024 ** 3 && outbox > 6 * bytes;
  if (bloated)
    yield warning(
      `plank.outbox takes ${size(outbox)} on disk for ${size(bytes)} of changes`,
      'vacuum does not come by, or an old transaction keeps it from cleaning up',
    );
  else yield ok(`the log holds ${size(bytes)} of at most ${size(limits.retentionBytes)}, ${size(outbox)} on disk`);
}

async function* examineLead(client: Client): AsyncGenerator<Finding, Pick<Captured, 'epoch' | 'seq'>> {
  const { rows } = await client.query<Record<string, string | null>>(`
    select holder, term, epoch, next_seq, expires_at > clock_timestamp() as leads,
      case when isfinite(expires_at) then extract(epoch from clock_timestamp() - expires_at) * 1000 end as over_ms from plank.leader`);
  const is = rows[0]!;
  const node = is.holder?.split('/')[0];
  if (is.leads as unknown as boolean) yield ok(`${node} leads (term ${is.term})`);
  else {
    const since = is.over_ms === null ? '' : ` for ${span(Number(is.over_ms))}`;
    const last = node ? `; the last one was ${node}` : '';
    yield fault(
      `no listener leads${since}: changes wait${last}`,
      'start a listener (npm run listener), or see its log',
    );
  }
  return { epoch: Number(is.epoch), seq: Number(is.next_seq) - 1 };
}
