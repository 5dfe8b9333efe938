/**
 * Reads history from plank.log. Within the retention, the same changes always have the same seqs. The reader checks
 * that seqs have no gaps. So if a purge deletes changes during a read, the read fails and leaves no change out
 * silently.
 */

import { asText, firstFetch, limited, nextFetch, type Pool } from '../postgres/postgres.ts';
import { RowCursor } from '../postgres/row-cursor.ts';
import { answered } from '../postgres/silence.ts';
import { withDeadlineOr } from '../waiting.ts';
import { type ChangeRow, changeColumns } from './batch.ts';

/** The position is older than the retention, after the end of the log, or of a history that no longer exists. */
export class PositionGone extends Error {
  override readonly name = 'PositionGone';
}

/**
 * The database was copied, restored or restarted, and no listener has led since. The next listener that
 * leads determines which part of the log is valid.
 */
export class NotLed extends Error {
  override readonly name = 'NotLed';

  constructor() {
    super('no listener has led since the database started or was restored');
  }
}

export interface Extent {
  epoch: number;
  /** the first seq that can be read; newest + 1 if the log is empty */
  oldest: number;
  newest: number;
  /** the name of the listener that holds a valid lease; null: no listener leads */
  holder: string | null;
}

/**
 * The size of a chunk. With chunks four times as large, a long read took a third more memory (of the young heap), and
 * was not faster.
 */
const chunkCharacters = 256 * 1024;
const chunkRows = 1_024;
/**
 * A fetch ends at this size even if fewer rows than requested have come. The row that exceeds the size is included.
 * This bound matters if the rows are larger than the rows of the fetch before.
 */
const maxFetchCharacters = 1024 * 1024;
const pageCharacters = 1024 * 1024;
/**
 * the first rows come only after Postgres has sorted the changes of their drain, or of a chunk if the drain is large
 */
const sortDeadlineMs = 60_000;
const fetchDeadlineMs = 5_000;
/** the deadline of queries that Postgres answers at once unless it is unreachable */
const quickMs = 2_000;

function weight(row: ChangeRow): number {
  return 100 + (row[6]?.length ?? 0) + (row[7]?.length ?? 0);
}

function characters(rows: readonly ChangeRow[]): number {
  let sum = 0;
  for (const row of rows) sum += weight(row);
  return sum;
}

interface ExtentRow {
  epoch: number;
  oldest: string;
  newest: string;
  is_led: boolean;
  holder: string | null;
}

export interface Epoch {
  epoch: number;
  /** the last seq that this epoch shares with the epoch before it */
  forkedAt: number;
}

const readLog = `select ${changeColumns} from plank.read_log($1)`;

export class LogReader {
  readonly #pool: Pool;

  constructor(pool: Pool) {
    this.#pool = pool;
  }

  /** If no listener has led since the database started or was restored, throws NotLed. */
  async extent(): Promise<Extent> {
    const { isLed, ...extent } = await this.lastExtent();
    if (!isLed) throw new NotLed();
    return extent;
  }

  /** The extent as the last leader left it. Unlike `extent`, this method does not throw NotLed, but returns `isLed`. */
  async lastExtent(): Promise<Extent & { isLed: boolean }> {
    const { rows } = await this.#pool.query<ExtentRow>(limited(quickMs, 'select * from plank.extent()'));
    const { epoch, oldest, newest, is_led: isLed, holder } = rows[0]!;
    return { epoch, oldest: Number(oldest), newest: Number(newest), isLed, holder };
  }

  /**
   * All epochs, oldest first. A position of an epoch is valid up to the lowest `forkedAt` of the later
   * epochs.
   */
  async epochs(): Promise<Epoch[]> {
    const { rows } = await this.#pool.query<{ epoch: number; forked_at: string }>(
      limited(quickMs, 'select epoch, forked_at from plank.epochs order by epoch'),
    );
    return rows.map((row) => ({ epoch: row.epoch, forkedAt: Number(row.forked_at) }));
  }

  /**
   * If only canaries were purged after the seq `after`, returns the oldest seq after which reading can continue.
   * Otherwise returns null.
   */
  async advancePastCanaries(after: number): Promise<number | null> {
    const { rows } = await this.#pool.query<{ seq: string | null }>(
      limited(quickMs, 'select plank.advance_past_canaries($1) as seq', [after]),
    );
    const seq = rows[0]!.seq;
    return seq === null ? null : Number(seq);
  }

  /**
   * Resolves with up to `limit` changes after the seq `after`, or about 1 MB of them. If `after` is the newest seq,
   * resolves with no changes. If the changes after `after` are not in the log, throws PositionGone.
   */
  async page(after: number, limit: number): Promise<ChangeRow[]> {
    const page: ChangeRow[] = [];
    let size = 0;
    for await (const rows of this.stream(after)) {
      page.push(...rows);
      size += characters(rows);
      if (page.length >= limit || size > pageCharacters) break;
    }
    return page.length > limit ? page.slice(0, limit) : page;
  }

  /**
   * Yields all changes after the seq `after` that are in the log at the start, in chunks of about 256 kB from one
   * cursor. Postgres neither sorts nor keeps later chunks in advance. If the changes after `after` are not in the log,
   * throws PositionGone.
   */
  async *stream(after: number): AsyncGenerator<ChangeRow[]> {
    const client = await this.#pool.connect();
    let broken: Error | undefined;
    const query = { text: readLog, values: [after], rowMode: 'array', types: asText } as const;
    const cursor = new RowCursor<ChangeRow>(client, query, maxFetchCharacters, weight);
    const silent = () => new Error('Postgres is silent');
    try {
      let at = after;
      // The sizes of rows are not known in advance. So the first fetch is small, and the size of each later fetch
      // depends on the sizes of the rows before.
      let count = firstFetch;
      for (let deadlineMs = sortDeadlineMs; ; deadlineMs = fetchDeadlineMs) {
        const { rows } = await answered(cursor.fetch(count), client, this.#pool, deadlineMs);
        if (at === after || rows.length > 0) await this.#check(rows, at);
        if (rows.length === 0) return;
        at = Number(rows.at(-1)![0]);
        count = nextFetch(count, rows.length, characters(rows), chunkCharacters, chunkRows);
        yield rows;
      }
    } catch (error) {
      broken = error as Error;
      throw error;
    } finally {
      // The cursor is not closed on a broken connection, because closing would wait for an answer that does not come.
      if (!broken)
        await withDeadlineOr(cursor.close(), fetchDeadlineMs, silent).catch((error: Error) => {
          broken = error;
        });
      client.release(broken);
    }
  }

  async #check(rows: readonly ChangeRow[], after: number): Promise<void> {
    const first = rows[0];
    if (first) {
      if (Number(first[0]) === after + 1 && Number(rows.at(-1)![0]) === after + rows.length) return;
      throw new PositionGone(`the log continues at ${first[0]}, not after ${after}`);
    }
    const { oldest, newest } = await this.extent();
    // A drain may have committed since the fetch, so `newest` may be above `after`. The next read finds its changes.
    if (after < oldest - 1 || after > newest)
      throw new PositionGone(`${after} is not within ${oldest - 1} … ${newest}`);
  }
}
