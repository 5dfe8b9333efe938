/**
 * Reads history from plank.log: the same changes with the same seqs, at any time within the retention. It checks that
 * seqs are dense, so that a read which races with a purge fails instead of leaving changes out.
 */

import { asText, firstFetch, limited, nextFetch, type Pool } from '../postgres/postgres.ts';
import { RowCursor } from '../postgres/row-cursor.ts';
import { answered } from '../postgres/silence.ts';
import { withDeadlineOr } from '../waiting.ts';
import { type ChangeRow, changeColumns } from './batch.ts';

/** The position is past the retention, ahead of the log, or of a history that no longer exists. */
export class PositionGone extends Error {
  override readonly name = 'PositionGone';
}

/**
 * The database was copied, restored or restarted, and no listener has led since. So it is not known how much of the
 * log is valid.
 */
export class NotLed extends Error {
  override readonly name = 'NotLed';

  constructor() {
    super('no listener has led since the database started or was restored');
  }
}

export interface Extent {
  epoch: number;
  /** the first seq that can be read; newest + 1 if there is none */
  oldest: number;
  newest: number;
  /** who holds a valid lease; null: nobody leads */
  holder: string | null;
}

/** four times as much made a long read take a third more memory (of the young heap) and no less time */
const chunkCharacters = 256 * 1024;
const chunkRows = 1_024;
/** at most, for a fetch whose rows turn out larger than those before; the row that exceeds it is included */
const maxFetchCharacters = 1024 * 1024;
const pageCharacters = 1024 * 1024;
/** the first rows come when Postgres has sorted their drain, or in a large drain their chunk */
const sortDeadlineMs = 60_000;
const fetchDeadlineMs = 5_000;
/** for queries that are answered at once or not at all */
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
  /** the last seq that it shares with the epoch before */
  forkedAt: number;
}

const readLog = `select ${changeColumns} from plank.read_log($1)`;

export class LogReader {
  readonly #pool: Pool;

  constructor(pool: Pool) {
    this.#pool = pool;
  }

  /** Throws NotLed. */
  async extent(): Promise<Extent> {
    const { isLed, ...extent } = await this.lastExtent();
    if (!isLed) throw new NotLed();
    return extent;
  }

  /** The extent as the last leader left it, even if no listener has led since the history became another one. */
  async lastExtent(): Promise<Extent & { isLed: boolean }> {
    const { rows } = await this.#pool.query<ExtentRow>(limited(quickMs, 'select * from plank.extent()'));
    const { epoch, oldest, newest, is_led: isLed, holder } = rows[0]!;
    return { epoch, oldest: Number(oldest), newest: Number(newest), isLed, holder };
  }

  /** All epochs, oldest first. A position of one epoch is valid up to where each later one forked off. */
  async epochs(): Promise<Epoch[]> {
    const { rows } = await this.#pool.query<{ epoch: number; forked_at: string }>(
      limited(quickMs, 'select epoch, forked_at from plank.epochs order by epoch'),
    );
    return rows.map((row) => ({ epoch: row.epoch, forkedAt: Number(row.forked_at) }));
  }

  /** The oldest seq that can be continued after, if only canaries were purged between `after` and it; else null. */
  async advancePastCanaries(after: number): Promise<number | null> {
    const { rows } = await this.#pool.query<{ seq: string | null }>(
      limited(quickMs, 'select plank.advance_past_canaries($1) as seq', [after]),
    );
    const seq = rows[0]!.seq;
    return seq === null ? null : Number(seq);
  }

  /**
   * Up to `limit` changes after the seq `after`, or about 1 MB of them; none if it is the newest. Throws
   * PositionGone.
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
   * All changes after the seq `after` that are in the log when it starts, in chunks of about 256 kB from one cursor.
   * Postgres neither sorts nor keeps later chunks. Throws PositionGone.
   */
  async *stream(after: number): AsyncGenerator<ChangeRow[]> {
    const client = await this.#pool.connect();
    let broken: Error | undefined;
    const query = { text: readLog, values: [after], rowMode: 'array', types: asText } as const;
    const cursor = new RowCursor<ChangeRow>(client, query, maxFetchCharacters, weight);
    const silent = () => new Error('Postgres is silent');
    try {
      let at = after;
      // sizes are not known in advance: the first fetch is small, later ones follow the sizes so far
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
      // not on a broken connection: it would not confirm that the cursor is closed, and the reader would wait
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
    // a drain may have committed since then; the next read finds its changes
    if (after < oldest - 1 || after > newest)
      throw new PositionGone(`${after} is not within ${oldest - 1} … ${newest}`);
  }
}
