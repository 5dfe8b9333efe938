/**
 * One transaction that reads a channel's rows as of one moment, page by page. The transaction waits
 * for locks only briefly: it fails with SQLSTATE 55P03 if another session has locked the table, or
 * anything else that the query reads. The owner must call `end`, also after an error.
 */
import type { QueryResult } from 'pg';
import { asText, isStatementError, nextFetch, type Pool, type PoolClient, quoted } from '#shared/postgres/postgres.ts';
import { RowCursor } from '#shared/postgres/row-cursor.ts';
import { answered } from '#shared/postgres/silence.ts';
import { withDeadlineOr } from '#shared/waiting.ts';
import type { Revocations } from '../access/revocations.ts';
import type { Table } from '../catalog/catalog.ts';
import { AlreadySeen } from '../channels/already-seen.ts';
import { keyIn, project } from '../channels/projection.ts';
import type { RowQuery } from '../channels/row-query.ts';
import type { RowsChannel } from '../channels/rows-channel.ts';

const pageCharacters = 128 * 1024;
/** a fetch ends with the row that crosses this bound, because its rows may be larger than the rows before */
const maxFetchCharacters = 1024 * 1024;
const lockMs = 50;
/** wait for locks of Plank's own tables, which are hardly ever locked */
const ownLockMs = 10_000;
const fetchDeadlineMs = 30_000;
const closeDeadlineMs = 5_000;

/** The table was altered after the channel was made, or its policies changed. The feed will report this soon. */
export class Altered extends Error {
  override readonly name = 'Altered';
}

export interface SnapshotStart {
  /** the rows are as of this seq … */
  seq: number;
  epoch: number;
  /** … and contain later changes, which AlreadySeen drops; each cursor needs its own, because it counts them */
  alreadySeen: () => AlreadySeen;
}

/**
 * A page of rows as members of a frame: `"rows":[{…},{…}]`, then `"truncated":[…]` with the keys of
 * rows above the bound, if there are any.
 */
export type Page = string;

export class SnapshotTransaction {
  readonly start: SnapshotStart;
  readonly #pool: Pool;
  readonly #client: PoolClient;
  readonly #query: RowQuery;
  readonly #cursor: RowCursor<[string]>;
  /** rows to fetch; few at first: rows may be large, and reading them is wasted if there is no room for them */
  #count = 8;
  #next: Fetched | undefined;
  #broken: Error | undefined;

  private constructor(pool: Pool, client: PoolClient, start: SnapshotStart, channel: RowsChannel) {
    this.#pool = pool;
    this.#client = client;
    this.start = start;
    this.#query = channel.query;
    this.#cursor = new RowCursor<[string]>(client, snapshotQuery(channel), maxFetchCharacters, ([row]) => row.length);
  }

  static async begin(pool: Pool, channel: RowsChannel, revocations: Revocations | null): Promise<SnapshotTransaction> {
    const client = await pool.connect();
    try {
      const { revoked, ...start } = await begin(client, channel.table);
      // nobody who was revoked when these rows were there may get them
      await revocations?.reach(revoked);
      return new SnapshotTransaction(pool, client, start, channel);
    } catch (error) {
      await release(client, error);
      throw error;
    }
  }

  /** The next page, and whether another follows. There is at least one page. */
  readonly page = async (): Promise<{ text: Page; more: boolean }> => {
    try {
      const page = this.#next ?? (await this.#fetch());
      this.#next = page.more ? await this.#fetch() : undefined;
      // the last fetch may have returned no rows
      const more = this.#next !== undefined && (this.#next.count > 0 || this.#next.more);
      return { text: page.text, more };
    } catch (error) {
      this.#broken = error as Error;
      throw error;
    }
  };

  async end(): Promise<void> {
    if (!this.#broken) {
      try {
        await withDeadlineOr(this.#cursor.close(), closeDeadlineMs, silent);
      } catch (error) {
        this.#broken = error as Error;
      }
    }
    // after a cursor's error, the connection may hold unread answers, so it is not reused
    if (this.#broken) this.#client.release(this.#broken);
    else await release(this.#client, undefined);
  }

  /** A page has about `pageCharacters`, even if rows are large, but at least one row if rows are left. */
  async #fetch(): Promise<Fetched> {
    const count = this.#count;
    const { rows, more } = await answered(this.#cursor.fetch(count), this.#client, this.#pool, fetchDeadlineMs);
    const text = pageOf(rows, this.#query);
    this.#count = nextFetch(count, rows.length, text.length, pageCharacters);
    return { text, count: rows.length, more };
  }
}

interface Fetched {
  text: Page;
  count: number;
  more: boolean;
}

/** Rows above the bound become keys, or their projection, as images do in a live channel: see rows-channel.ts. */
function pageOf(rows: readonly [string][], { table, columns }: RowQuery): Page {
  const whole: string[] = [];
  const truncated: string[] = [];
  for (const [row] of rows) {
    if (!row.startsWith(' ')) {
      whole.push(row);
      continue;
    }
    const image = Buffer.from(row);
    const projected = columns && project(image, new Set(columns));
    if (projected) whole.push(projected.toString());
    else truncated.push(keyIn(image, table.keyColumns)!.toString());
  }
  return `"rows":[${whole.join(',')}]${truncated.length > 0 ? `,"truncated":[${truncated.join(',')}]` : ''}`;
}

const silent = () => new Error('Postgres is silent');

const lockTimeout = (ms: number) => `set local lock_timeout = ${ms}`;

/** SQL that locks a table for reading. `waitMs` bounds this wait and every later wait of the transaction for a lock. */
export function accessShare(table: Table, waitMs: number): string {
  return `${lockTimeout(waitMs)}; lock table ${nameOf(table)} in access share mode`;
}

/** `revoked`: the highest id of a revocation as of the rows. */
async function begin(client: PoolClient, table: Table): Promise<SnapshotStart & { revoked: number }> {
  // The lock must come before the snapshot. In the other order, after a TRUNCATE or a rewrite
  // between the two, the table would be empty even for a snapshot that does not see the TRUNCATE.
  await client.query(
    `begin isolation level repeatable read, read only; ${accessShare(table, lockMs)}; ${lockTimeout(ownLockMs)}`,
  );
  const [{ rows }] = (await client.query(
    `select l.epoch, l.next_seq - 1 as seq, pg_current_snapshot()::text as snap,
            a.catalog_digest as version, a.policies_xid::text as policies,
            (select coalesce(max(id), 0) from plank.revocations) as revoked,
            (select count(*) from plank.between(l.snap, pg_current_snapshot())) as unnumbered
     from plank.leader l left join plank.attachments a on a.id = ${table.id};
     ${lockTimeout(lockMs)}`,
  )) as unknown as [
    QueryResult<{
      epoch: number;
      seq: string;
      snap: string;
      version: string | null;
      policies: string | null;
      revoked: string;
      unnumbered: string;
    }>,
  ];
  const { epoch, seq, snap, version, policies, revoked, unnumbered } = rows[0]!;
  // rows as of this snapshot may be read only under the policies as of this snapshot
  if (version !== table.version || policies !== table.policiesVersion) throw new Altered();
  return {
    epoch,
    seq: Number(seq),
    revoked: Number(revoked),
    alreadySeen: () => new AlreadySeen(snap, Number(unnumbered)),
  };
}

/** Returns the connection to the pool if it can be reused. */
async function release(client: PoolClient, failed: unknown): Promise<void> {
  const isReusable = failed === undefined || failed instanceof Altered || isStatementError(failed);
  let broken = isReusable ? undefined : (failed as Error);
  if (!broken)
    await withDeadlineOr(client.query('rollback'), closeDeadlineMs, silent).catch((error: Error) => {
      broken = error;
    });
  client.release(broken);
}

function snapshotQuery({ query: { table, filter, columns } }: RowsChannel): {
  text: string;
  values: unknown[];
  rowMode: 'array';
  types: typeof asText;
} {
  const where = filter?.sql() ?? { text: 'true', values: [] };
  const projected =
    columns &&
    `(select pg_catalog.to_json(image.*)::pg_catalog.text from (select ${table.columns
      .filter(({ name }) => columns.includes(name))
      .map(({ name, value }) => `${value ?? `t.${quoted(name)}`} as ${quoted(name)}`)
      .join(', ')}) image)`;
  // the size of the whole row decides which columns are left out, as in changes
  const image =
    projected === null
      ? `(${table.imageSql})::text`
      : table.largeSql === null
        ? projected
        : `coalesce(${table.largeSql}, ${projected})`;
  const text = `select ${image} from ${nameOf(table)} t where ${where.text}`;
  return { text, values: where.values, rowMode: 'array', types: asText };
}

const nameOf = ({ schema, table }: Table) => `${quoted(schema)}.${quoted(table)}`;
