/**
 * Reads what a channel's rows are at one moment, and where in the log that moment is. In one transaction: the last seq given,
 * the snapshot, how many changes it sees that have no seq yet (they get one later and are dropped then, see skip.ts), and
 * the rows. Small results are shared by all who ask at the same time; only a few are read at once.
 */
import Cursor from 'pg-cursor';
import type { GatewayMetrics } from '#shared/metrics.ts';
import { asText, type Pool, type PoolClient } from '#shared/postgres.ts';
import { withDeadlineOr } from '#shared/retry.ts';
import type { FilteredChannel } from './filtered-channel.ts';
import { Skip } from './skip.ts';

const rowsPerPage = 500;
/** results up to this size are kept until the last of those who wait for them has them */
const shareBytes = 4 * 1024 * 1024;
const maxAtOnce = 4;
const fetchDeadlineMs = 30_000;

export interface SnapshotStart {
  /** the rows are as of this seq … */
  seq: number;
  epoch: number;
  /** … and of the changes that this drops behind it */
  skip: () => Skip;
}

/** A page of rows as a JSON array's inside: `{…},{…}`. */
export type Page = string;

interface Small {
  start: SnapshotStart;
  pages: Page[];
}

export class Snapshots {
  readonly #pool: Pool;
  readonly #metrics: GatewayMetrics;
  readonly #shared = new Map<string, Promise<Small | null>>();
  readonly #waiting: (() => void)[] = [];
  #running = 0;

  constructor(pool: Pool, metrics: GatewayMetrics) {
    this.#pool = pool;
    this.#metrics = metrics;
  }

  /**
   * Reads a channel's rows. `onPage` gets each page, with whether another follows, and may take its time; it returns false
   * to stop. Resolves with where the log goes on, null when stopped. Rejects when Postgres does not answer.
   */
  async read(
    channel: FilteredChannel,
    onPage: (page: Page, more: boolean) => Promise<boolean>,
  ): Promise<SnapshotStart | null> {
    const key = channel.name;
    const running = this.#shared.get(key);
    if (running) {
      const small = await running;
      if (small) return (await hand(small.pages, onPage)) ? small.start : null;
    }
    const share = Promise.withResolvers<Small | null>();
    share.promise.catch(() => {});
    const first = !this.#shared.has(key);
    if (first) this.#shared.set(key, share.promise);
    try {
      return await this.#limited(() => this.#run(channel, onPage, share.resolve));
    } catch (error) {
      share.reject(error);
      throw error;
    } finally {
      share.resolve(null);
      if (first) this.#shared.delete(key);
    }
  }

  async #run(
    channel: FilteredChannel,
    onPage: (page: Page, more: boolean) => Promise<boolean>,
    share: (small: Small | null) => void,
  ): Promise<SnapshotStart | null> {
    this.#metrics.snapshots.inc();
    const client = await this.#pool.connect();
    let broken: Error | undefined;
    try {
      const start = await this.#begin(client);
      const cursor = client.query(new Cursor<[string]>(...snapshotQuery(channel)));
      const pages: Page[] = [];
      let bytes = 0;
      let small = true;
      let page = await fetchPage(cursor);
      for (;;) {
        const next = page.more ? await fetchPage(cursor) : null;
        pages.push(page.text);
        bytes += page.text.length;
        if (small && next && bytes > shareBytes) {
          small = false;
          share(null);
        }
        if (!small) {
          for (const text of pages.splice(0)) if (!(await onPage(text, next !== null))) return await stop(null);
        }
        if (next === null) break;
        page = next;
      }
      if (!small) return await stop(start);
      share({ start, pages });
      await stop(null);
      return (await hand(pages, onPage)) ? start : null;

      async function stop(result: SnapshotStart | null): Promise<SnapshotStart | null> {
        await withDeadlineOr(cursor.close(), fetchDeadlineMs, silent);
        await client.query('rollback');
        return result;
      }
    } catch (error) {
      broken = error as Error;
      throw error;
    } finally {
      client.release(broken);
    }
  }

  async #begin(client: PoolClient): Promise<SnapshotStart> {
    await client.query('begin isolation level repeatable read, read only');
    const { rows } = await client.query<{ epoch: number; seq: string; snap: string; unnumbered: string }>(
      `select l.epoch, l.next_seq - 1 as seq, pg_current_snapshot()::text as snap,
              (select count(*) from plank.between(l.snap, pg_current_snapshot())) as unnumbered
       from plank.leader l`,
    );
    const { epoch, seq, snap, unnumbered } = rows[0]!;
    return { epoch, seq: Number(seq), skip: () => new Skip(snap, Number(unnumbered)) };
  }

  async #limited<T>(work: () => Promise<T>): Promise<T> {
    if (this.#running >= maxAtOnce) await new Promise<void>((resolve) => this.#waiting.push(resolve));
    else this.#running++;
    try {
      return await work();
    } finally {
      const next = this.#waiting.shift();
      if (next) next();
      else this.#running--;
    }
  }
}

const silent = () => new Error('Postgres is silent');

function snapshotQuery({
  words: { table, filter, columns },
}: FilteredChannel): [string, unknown[], { rowMode: 'array'; types: typeof asText }] {
  const where = filter?.sql() ?? { text: 'true', values: [] };
  const image = columns
    ? `(select to_json(i)::text from (select ${table.columns
        .filter(({ name }) => columns.includes(name))
        .map(({ name }) => `t.${quoted(name)}`)
        .join(', ')}) i)`
    : `(${table.imageSql})::text`;
  return [
    `select ${image} from ${quoted(table.schema)}.${quoted(table.table)} t where ${where.text}`,
    where.values,
    { rowMode: 'array', types: asText },
  ];
}

function quoted(name: string): string {
  return `"${name.replaceAll('"', '""')}"`;
}

async function fetchPage(cursor: Cursor<[string]>): Promise<{ text: Page; more: boolean }> {
  const rows = await withDeadlineOr(cursor.read(rowsPerPage), fetchDeadlineMs, silent);
  return { text: rows.map(([image]) => image).join(','), more: rows.length === rowsPerPage };
}

async function hand(pages: readonly Page[], onPage: (page: Page, more: boolean) => Promise<boolean>): Promise<boolean> {
  for (const [i, page] of pages.entries()) if (!(await onPage(page, i < pages.length - 1))) return false;
  return true;
}
