/**
 * One transaction that reads a channel's rows as of one moment, page by page. Its waits for locks are short: it fails with SQLSTATE 55P03
 * where somebody has locked the table, or what the rows are made of. Its owner ends it in any case.
 */
import type { QueryResult } from 'pg';
import { asText, isStatementError, nextFetch, type Pool, type PoolClient, quoted } from '#shared/postgres/postgres.ts';
import { RowCursor } from '#shared/postgres/row-cursor.ts';
import { answered } from '#shared/postgres/silence.ts';
import { withDeadlineOr } from '#shared/waiting.ts';
import type { Table } from '../catalog/catalog.ts';
import { Skip } from '../channels/already-seen.ts';
import { keyIn, project } from '../channels/projection.ts';
import type { ChannelWords, FilteredChannel } from '../channels/rows-channel.ts';

const pageCharacters = 128 * 1024;
/** of a fetch whose rows turn out to be larger than those before; with the row that passes it */
const maxFetchCharacters = 1024 * 1024;
const lockMs = 50;
/** our own tables are hardly ever locked */
const ownLockMs = 10_000;
const fetchDeadlineMs = 30_000;
const closeDeadlineMs = 5_000;

/** The table is another one than that which the channel was made for, and the feed is about to say so. */
export class Altered extends Error {
  override readonly name = 'Altered';
}

export interface SnapshotStart {
  /** the rows are as of this seq … */
  seq: number;
  epoch: number;
  /** … and of the changes that this drops behind it */
  skip: () => Skip;
}

/** A page of rows as members of a frame: `"rows":[{…},{…}]`, and `"truncated":[…]` where there are rows above the bound. */
export type Page = string;

export class SnapshotTransaction {
  readonly start: SnapshotStart;
  readonly #pool: Pool;
  readonly #client: PoolClient;
  readonly #words: ChannelWords;
  readonly #cursor: RowCursor<[string]>;
  /** rows may be large: what is read in vain, where there is no room, is little */
  #count = 8;
  #next: Fetched | undefined;
  #broken: Error | undefined;

  private constructor(pool: Pool, client: PoolClient, start: SnapshotStart, channel: FilteredChannel) {
    this.#pool = pool;
    this.#client = client;
    this.start = start;
    this.#words = channel.words;
    this.#cursor = new RowCursor<[string]>(client, snapshotQuery(channel), maxFetchCharacters, ([row]) => row.length);
  }

  static async begin(pool: Pool, channel: FilteredChannel): Promise<SnapshotTransaction> {
    const client = await pool.connect();
    try {
      return new SnapshotTransaction(pool, client, await begin(client, channel.words.table), channel);
    } catch (error) {
      await release(client, error);
      throw error;
    }
  }

  /** The next page, and whether another follows. There is one at least. */
  readonly page = async (): Promise<{ text: Page; more: boolean }> => {
    try {
      const page = this.#next ?? (await this.#fetch());
      this.#next = page.more ? await this.#fetch() : undefined;
      // the last fetch may have brought nothing
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
    // an error of a cursor leaves more to be read than a query would
    if (this.#broken) this.#client.release(this.#broken);
    else await release(this.#client, undefined);
  }

  /** Pages are of about `pageCharacters`: their size is bounded, however large a row is (one page holds one at least). */
  async #fetch(): Promise<Fetched> {
    const count = this.#count;
    const { rows, more } = await answered(this.#cursor.fetch(count), this.#client, this.#pool, fetchDeadlineMs);
    const text = pageOf(rows, this.#words);
    this.#count = nextFetch(count, rows.length, text.length, pageCharacters);
    return { text, count: rows.length, more };
  }
}

interface Fetched {
  text: Page;
  count: number;
  more: boolean;
}

/** As a live channel does with images: see filtered-channel.ts. */
function pageOf(rows: readonly [string][], { table, columns }: ChannelWords): Page {
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

/** Locks a table for reading, with a limit for this and every later wait of the transaction for a lock. */
export function accessShare(table: Table, waitMs: number): string {
  return `${lockTimeout(waitMs)}; lock table ${nameOf(table)} in access share mode`;
}

async function begin(client: PoolClient, table: Table): Promise<SnapshotStart> {
  // Locked before there is a snapshot: a TRUNCATE or a rewrite that came between the two would leave the table empty, also for
  // snapshots that do not see it.
  await client.query(
    `begin isolation level repeatable read, read only; ${accessShare(table, lockMs)}; ${lockTimeout(ownLockMs)}`,
  );
  const [{ rows }] = (await client.query(
    `select l.epoch, l.next_seq - 1 as seq, pg_current_snapshot()::text as snap,
            (select told from plank.attachments where id = ${table.id}) as version,
            (select count(*) from plank.between(l.snap, pg_current_snapshot())) as unnumbered
     from plank.leader l;
     ${lockTimeout(lockMs)}`,
  )) as unknown as [
    QueryResult<{ epoch: number; seq: string; snap: string; version: string | null; unnumbered: string }>,
  ];
  const { epoch, seq, snap, version, unnumbered } = rows[0]!;
  if (version !== table.version) throw new Altered();
  return { epoch, seq: Number(seq), skip: () => new Skip(snap, Number(unnumbered)) };
}

/** Gives the connection back where it is whole. */
async function release(client: PoolClient, failed: unknown): Promise<void> {
  const isWhole = failed === undefined || failed instanceof Altered || isStatementError(failed);
  let broken = isWhole ? undefined : (failed as Error);
  if (!broken)
    await withDeadlineOr(client.query('rollback'), closeDeadlineMs, silent).catch((error: Error) => {
      broken = error;
    });
  client.release(broken);
}

function snapshotQuery({ words: { table, filter, columns } }: FilteredChannel): {
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
  // what is left out depends on the whole row, as in changes
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
