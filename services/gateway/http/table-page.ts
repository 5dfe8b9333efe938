/** Reads one page of a table's rows for REST, bounded in rows and in bytes: rows of a megabyte each must not fill a gateway. */
import { firstFetch, isStatementError, nextFetch, type PoolClient } from '#shared/postgres/postgres.ts';
import { RowCursor } from '#shared/postgres/row-cursor.ts';
import { withDeadlineOr } from '#shared/waiting.ts';
import type { RestPool } from './rest-pool.ts';

/** A page ends with the row that makes it at least this large. */
const pageCharacters = 4 * 1024 * 1024;
const fetchDeadlineMs = 11_000;

export interface PageRow {
  /** as JSON */
  row: string;
  key: string[];
}

/** `text` selects rows and one more than `limit` of them at most. Rejects with Postgres' own errors. */
export async function readPage(
  connections: RestPool,
  table: string,
  { text, values, limit }: { text: string; values: readonly unknown[]; limit: number },
): Promise<{ rows: PageRow[]; more: boolean }> {
  return connections.use(table, async (client, giveUp) => {
    try {
      return await pageOf(client, { text, values, limit }, giveUp);
    } catch (error) {
      // what Postgres refuses leaves the connection whole
      if (!isStatementError(error)) giveUp(error as Error);
      throw error;
    }
  });
}

async function pageOf(
  client: PoolClient,
  { text, values, limit }: { text: string; values: readonly unknown[]; limit: number },
  giveUp: (why: Error) => void,
): Promise<{ rows: PageRow[]; more: boolean }> {
  const cursor = new RowCursor<PageRow>(client, { text, values }, pageCharacters, ({ row }) => row.length);
  const rows: PageRow[] = [];
  /** of them, how many are the page */
  let taken = 0;
  let size = 0;
  for (let count = firstFetch; ; ) {
    const { rows: fetched, more } = await withDeadlineOr(cursor.fetch(count), fetchDeadlineMs, silent);
    const characters = fetched.reduce((sum, { row }) => sum + row.length, 0);
    for (const { row } of fetched) {
      if (taken === limit || size >= pageCharacters) break;
      taken++;
      size += row.length;
    }
    rows.push(...fetched);
    if (!more || taken < rows.length) break;
    count = nextFetch(count, fetched.length, characters, pageCharacters);
  }
  // the page is whole, also where the connection is not
  await withDeadlineOr(cursor.close(), fetchDeadlineMs, silent).catch(giveUp);
  return { rows: rows.slice(0, taken), more: taken < rows.length };
}

const silent = () => new Error('timeout: Postgres is silent');
