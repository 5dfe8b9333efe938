/**
 * Reads what a channel's rows are at one moment, and where in the log that moment is. In one transaction: the last seq given,
 * the snapshot, how many changes it sees that have no seq yet (they get one later and are dropped then, see skip.ts), and
 * the rows. Small results are shared by all who ask while they are read; only a few are read at once, and no slow client
 * keeps the others from it. What nobody waits for any more is not read, or no further than the page that is on its way.
 *
 * The queue has no bound of its own: in it are subscriptions of clients that are there, whose number is bounded, and each of
 * them is larger than its place in the queue. To send one away would only have it come back, behind those who came later.
 */
import Cursor from 'pg-cursor';
import type { Table } from '#shared/catalog.ts';
import type { GatewayMetrics } from '#shared/metrics.ts';
import { asText, firstFetch, nextFetch, type Pool, type PoolClient, quoted } from '#shared/postgres.ts';
import { withDeadlineOr } from '#shared/retry.ts';
import type { FilteredChannel } from './filtered-channel.ts';
import { Limiter } from './limiter.ts';
import { Skip } from './skip.ts';

const pageCharacters = 128 * 1024;
/** results up to this size are read to the end before the first page is handed over; larger ones at the client's pace */
const shareBytes = 4 * 1024 * 1024;
export const maxAtOnce = 4;
const fetchDeadlineMs = 30_000;
/** within which a client must take a page of a large result: it keeps a transaction open */
const pageDeadlineMs = 10_000;

/** The client took a page of a large result too late. */
export class TooSlow extends Error {
  override readonly name = 'TooSlow';
}

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

/** One reading of a channel's rows, and all who wait for it: it stops when the last of them has gone. */
class Reading {
  readonly table: Table;
  readonly #rows = Promise.withResolvers<Small | null>();
  readonly #abort = new AbortController();
  #wanted = 0;

  constructor(table: Table) {
    this.table = table;
    this.#rows.promise.catch(() => {});
  }

  /** null: too large to be shared, or stopped */
  get rows(): Promise<Small | null> {
    return this.#rows.promise;
  }

  /** Aborts when nobody waits any more. */
  get signal(): AbortSignal {
    return this.#abort.signal;
  }

  settle(rows: Small | null): void {
    this.#rows.resolve(rows);
  }

  fail(error: unknown): void {
    this.#rows.reject(error);
  }

  /** Waits for `work` as one who wants this, until the signal aborts. */
  async wanted<T>(signal: AbortSignal, work: () => Promise<T>): Promise<T> {
    const leave = () => {
      if (--this.#wanted === 0) this.#abort.abort();
    };
    this.#wanted++;
    signal.addEventListener('abort', leave, { once: true });
    try {
      return await work();
    } finally {
      signal.removeEventListener('abort', leave);
      if (!signal.aborted) this.#wanted--;
    }
  }
}

export class Snapshots {
  readonly #pool: Pool;
  readonly #metrics: GatewayMetrics;
  /** by the channel's name, while being read */
  readonly #shared = new Map<string, Reading>();
  readonly #limiter = new Limiter(maxAtOnce);

  constructor(pool: Pool, metrics: GatewayMetrics) {
    this.#pool = pool;
    this.#metrics = metrics;
    metrics.snapshotsWaiting.askedOf(() => metrics.snapshotsWaiting.set(this.#limiter.waiting));
  }

  /**
   * Reads a channel's rows. `onPage` gets each page, with whether another follows, and may take its time; it returns false
   * to stop, as the signal does. Resolves with where the log goes on, null when stopped. Rejects when Postgres does not
   * answer, and with TooSlow.
   */
  async read(
    channel: FilteredChannel,
    signal: AbortSignal,
    onPage: (page: Page, more: boolean) => Promise<boolean>,
  ): Promise<SnapshotStart | null> {
    if (signal.aborted) return null;
    const running = this.#running(channel);
    if (running) {
      const small = await running.wanted(signal, () => running.rows);
      if (small) return (await hand(small.pages, onPage)) ? small.start : null;
      if (signal.aborted) return null;
    }
    const { name, words } = channel;
    const reading = new Reading(words.table);
    if (!this.#running(channel)) this.#shared.set(name, reading);
    // whoever comes later reads anew, however long those who are here take: the log of that time may be forgotten by then
    const share = (small: Small | null) => {
      reading.settle(small);
      if (this.#shared.get(name) === reading) this.#shared.delete(name);
    };
    try {
      const result = await reading.wanted(signal, () =>
        this.#limiter.run(() => this.#run(channel, reading.signal, onPage, share), reading.signal),
      );
      return result && (await hand(result.pages, onPage)) ? result.start : null;
    } catch (error) {
      if (reading.signal.aborted) return null;
      reading.fail(error);
      throw error;
    } finally {
      share(null);
    }
  }

  /** What can be joined: rows of before the table was altered are no longer what is asked for. */
  #running({ name, words }: FilteredChannel): Reading | undefined {
    const reading = this.#shared.get(name);
    return reading?.table === words.table && !reading.signal.aborted ? reading : undefined;
  }

  /** Resolves with the pages that are still to be handed over, null when stopped. */
  async #run(
    channel: FilteredChannel,
    signal: AbortSignal,
    onPage: (page: Page, more: boolean) => Promise<boolean>,
    share: (small: Small | null) => void,
  ): Promise<Small | null> {
    this.#metrics.snapshots.inc();
    const client = await this.#pool.connect();
    let broken: Error | undefined;
    try {
      const start = await this.#begin(client, channel.words.table);
      const cursor = client.query(new Cursor<[string]>(...snapshotQuery(channel)));
      const pages: Page[] = [];
      let bytes = 0;
      let small = true;
      const fetchPage = pagesOf(cursor);
      let page = await fetchPage();
      for (;;) {
        if (signal.aborted) return await stop(null);
        const next = page.more ? await fetchPage() : null;
        pages.push(page.text);
        bytes += page.text.length;
        if (small && next && bytes > shareBytes) {
          small = false;
          share(null);
        }
        if (!small) {
          for (const text of pages.splice(0)) {
            const taken = await withDeadlineOr(onPage(text, next !== null), pageDeadlineMs, () => new TooSlow());
            if (!taken) return await stop(null);
          }
        }
        if (next === null) break;
        page = next;
      }
      if (small) share({ start, pages });
      return await stop({ start, pages });

      async function stop(result: Small | null): Promise<Small | null> {
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

  async #begin(client: PoolClient, table: Table): Promise<SnapshotStart> {
    // Locked before there is a snapshot: a TRUNCATE or a rewrite that came between the two would leave the table empty, also for
    // snapshots that do not see it.
    await client.query(
      `begin isolation level repeatable read, read only; lock table ${nameOf(table)} in access share mode`,
    );
    const { rows } = await client.query<{ epoch: number; seq: string; snap: string; unnumbered: string }>(
      `select l.epoch, l.next_seq - 1 as seq, pg_current_snapshot()::text as snap,
              (select count(*) from plank.between(l.snap, pg_current_snapshot())) as unnumbered
       from plank.leader l`,
    );
    const { epoch, seq, snap, unnumbered } = rows[0]!;
    return { epoch, seq: Number(seq), skip: () => new Skip(snap, Number(unnumbered)) };
  }
}

const silent = () => new Error('Postgres is silent');

function snapshotQuery({
  words: { table, filter, columns },
}: FilteredChannel): [string, unknown[], { rowMode: 'array'; types: typeof asText }] {
  const where = filter?.sql() ?? { text: 'true', values: [] };
  const image = columns
    ? `(select pg_catalog.to_json(image.*)::pg_catalog.text from (select ${table.columns
        .filter(({ name }) => columns.includes(name))
        .map(({ name, value }) => `${value ?? `t.${quoted(name)}`} as ${quoted(name)}`)
        .join(', ')}) image)`
    : `(${table.imageSql})::text`;
  return [
    `select ${image} from ${nameOf(table)} t where ${where.text}`,
    where.values,
    { rowMode: 'array', types: asText },
  ];
}

const nameOf = ({ schema, table }: Table) => `${quoted(schema)}.${quoted(table)}`;

/** Reads pages of about `pageCharacters`: their bytes are bounded, however large a row is (one page holds one at least). */
function pagesOf(cursor: Cursor<[string]>): () => Promise<{ text: Page; more: boolean }> {
  let count = firstFetch;
  return async () => {
    const rows = await withDeadlineOr(cursor.read(count), fetchDeadlineMs, silent);
    const text = rows.map(([image]) => image).join(',');
    const more = rows.length === count;
    count = nextFetch(count, rows.length, text.length, pageCharacters);
    return { text, more };
  };
}

async function hand(pages: readonly Page[], onPage: (page: Page, more: boolean) => Promise<boolean>): Promise<boolean> {
  for (const [i, page] of pages.entries()) if (!(await onPage(page, i < pages.length - 1))) return false;
  return true;
}
