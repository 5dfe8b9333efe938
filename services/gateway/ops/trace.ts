/**
 * Finds changes in the outbox and the log: one change by its position, or the latest changes of a row. This
 * file only queries; explain.ts interprets the result.
 */

import type { Pool } from '#shared/postgres/postgres.ts';
import type { Table } from '../catalog/catalog.ts';

export const maxChanges = 5;

/** A captured change. `drain` is the drain that gave the change its seq; null while the change waits. */
export interface Traced {
  /** the id of its outbox row */
  outboxId: string;
  xid: string;
  /** ISO 8601 */
  capturedAt: string;
  relation: number;
  action: string;
  /** JSON; null for a TRUNCATE */
  key: string | null;
  drain: { seq: number; firstSeq: number; lastSeq: number; drainedAt: string } | null;
}

interface TracedRow {
  id: string;
  xid: string;
  at: Date;
  relation: number;
  action: string;
  key: string | null;
  seq: string | null;
  first_seq: string | null;
  last_seq: string | null;
  drained_at: Date | null;
}

/**
 * The outbox rows of a drain, in the order in which it gave seqs. The place of a row in this order gives
 * its seq.
 */
const inDrain = `
  select l.first_seq - 1 + n.place as seq, n.id, l.first_seq, l.last_seq, l.drained_at
  from (select b.id, row_number() over (order by b.last_id, b.id) as place
        from (select c.id, max(c.id) over (partition by c.xid) as last_id
              from plank.between(l.before_snap, l.upto_snap) c) b) n`;
const columns = `o.id, o.xid::text, o.at, o.relation, o.action::text, o.key,
  d.seq, d.first_seq, d.last_seq, d.drained_at`;

/** The change with this seq; null if the log or the outbox does not have it. */
export async function traceSeq(pool: Pool, seq: number): Promise<Traced | null> {
  const { rows } = await pool.query<TracedRow>(
    `select ${columns} from plank.log l cross join lateral (${inDrain}) d join plank.outbox o on o.id = d.id
       where l.first_seq <= $1 and l.last_seq >= $1 and d.seq = $1`,
    [seq],
  );
  return rows[0] ? traced(rows[0]) : null;
}

/**
 * The latest changes of a row that are still kept, newest first. `key` has the values of the row's key, as
 * texts that Postgres reads. Scans all kept changes of the table, as there is no index by row.
 */
export async function traceRow(pool: Pool, table: Table, key: readonly string[]): Promise<Traced[]> {
  const isComposite = table.keyColumns.length > 1;
  const sameKey = table.keyColumns
    .map((name, i) => {
      const { type } = table.columns.find((column) => column.name === name)!;
      const value = isComposite ? `o.key::json ->> $${2 + 2 * i}` : `(o.key::json #>> '{}')`;
      return isComposite ? `(${value})::${type} = $${3 + 2 * i}::${type}` : `${value}::${type} = $2::${type}`;
    })
    .join(' and ');
  const values = isComposite ? table.keyColumns.flatMap((name, i) => [name, key[i]]) : [key[0]];
  const found = await pool.query<TracedRow>(
    `select o.id, o.xid::text, o.at, o.relation, o.action::text, o.key from plank.outbox o
       where o.relation = $1 and case when o.action = 'T' then true when o.key is null then false else ${sameKey} end
       order by o.xid desc, o.id desc limit ${maxChanges}`,
    [table.id, ...values],
  );
  return Promise.all(
    found.rows.map(async (row) => {
      const { rows } = await pool.query<TracedRow>(
        `select ${columns} from plank.outbox o
           left join lateral (
             select d.* from plank.log l cross join lateral (${inDrain}) d
             where not pg_visible_in_snapshot(o.xid, l.before_snap)
               and pg_visible_in_snapshot(o.xid, l.upto_snap) and d.id = o.id
           ) d on true
           where o.xid = $1::xid8 and o.id = $2`,
        [row.xid, row.id],
      );
      return traced(rows[0] ?? row);
    }),
  );
}

/** The epoch of the log, and the seqs of its oldest and newest change. */
export async function extentOf(pool: Pool): Promise<{ epoch: number; oldest: number; newest: number }> {
  const { rows } = await pool.query<{ epoch: number; oldest: string; newest: string }>('select * from plank.extent()');
  return { epoch: rows[0]!.epoch, oldest: Number(rows[0]!.oldest), newest: Number(rows[0]!.newest) };
}

/** Problems with the capture of a table, a sentence each. */
export async function problemsOf(pool: Pool, table: Table): Promise<string[]> {
  const { rows } = await pool.query<{ problem: string }>('select problem from plank.check() where name = $1', [
    table.name,
  ]);
  return rows.map(({ problem }) => problem);
}

function traced(row: TracedRow): Traced {
  return {
    outboxId: row.id,
    xid: row.xid,
    capturedAt: row.at.toISOString(),
    relation: row.relation,
    action: row.action,
    key: row.key,
    drain: row.seq
      ? {
          seq: Number(row.seq),
          firstSeq: Number(row.first_seq),
          lastSeq: Number(row.last_seq),
          drainedAt: row.drained_at!.toISOString(),
        }
      : null,
  };
}
