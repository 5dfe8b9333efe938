/**
 * Reads one page of a table's rows for REST. The page is bounded in rows and in size, as 1,000 rows of a
 * megabyte each would fill a gateway's memory.
 */
import { firstFetch, isStatementError, nextFetch } from '#shared/postgres/postgres.ts';
import { RowCursor } from '#shared/postgres/row-cursor.ts';
import { withDeadlineOr } from '#shared/waiting.ts';
import type { Lease, RestQueries } from './rest-pool.ts';

/** The row that makes a page at least this large is the last one of the page. */
const pageCharacters = 4 * 1024 * 1024;
const fetchDeadlineMs = 11_000;

export interface PageRow {
  /** as JSON */
  row: string;
  key: string[];
}

interface PageQuery {
  /** selects at most `limit` + 1 rows */
  text: string;
  values: readonly unknown[];
  limit: number;
  /** the claims of the viewer as JSON; null: AUTH=off */
  claims: string | null;
}

interface Page {
  rows: PageRow[];
  more: boolean;
}

/**
 * A statement for a transaction: until the transaction ends, triggers and row security of the database can read the
 * claims, as with PostgREST and Supabase. `claims` is SQL for a text.
 */
export const claimsSql = (claims: string): string =>
  `select pg_catalog.set_config('request.jwt.claims', ${claims}, true)`;

/** Rejects with Postgres' own errors. */
export async function readPage(queries: RestQueries, table: string, query: PageQuery): Promise<Page> {
  return queries.use(table, async (lease) => {
    try {
      return query.claims === null ? await pageOf(lease, query) : await pageUnder(query.claims, lease, query);
    } catch (error) {
      // after an error of the statement itself the connection can be used again
      if (!isStatementError(error)) lease.giveUp(error as Error);
      throw error;
    }
  });
}

/** Reads the page in a transaction with these claims. */
async function pageUnder(claims: string, lease: Lease, query: PageQuery): Promise<Page> {
  const { client } = lease;
  let isBroken = false;
  const giveUp = (why: Error) => {
    isBroken = true;
    lease.giveUp(why);
  };
  const end = () => withDeadlineOr(client.query('rollback'), fetchDeadlineMs, silent).catch(giveUp);
  await client.query('begin');
  try {
    await client.query(claimsSql('$1'), [claims]);
    const page = await pageOf({ ...lease, giveUp }, query);
    if (!isBroken) await end();
    return page;
  } catch (error) {
    // after any other error, the connection is given up, and the claims with it
    if (isStatementError(error)) await end();
    throw error;
  }
}

async function pageOf({ client, giveUp, requireClient }: Lease, { text, values, limit }: PageQuery): Promise<Page> {
  const cursor = new RowCursor<PageRow>(client, { text, values }, pageCharacters, ({ row }) => row.length);
  const rows: PageRow[] = [];
  /** how many of the rows belong to the page */
  let taken = 0;
  let size = 0;
  for (let count = firstFetch; ; ) {
    requireClient();
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
  // the page is complete, even if the connection fails now
  await withDeadlineOr(cursor.close(), fetchDeadlineMs, silent).catch(giveUp);
  return { rows: rows.slice(0, taken), more: taken < rows.length };
}

const silent = () => new Error('timeout: Postgres does not answer');
