/**
 * Reads the values of sets from Postgres. Sets that are requested at the same time share a transaction, because
 * thousands of clients may connect at once. The transaction locks the tables before it takes its snapshot. Without
 * the lock, a TRUNCATE could come between the snapshot and the query: then the table would look empty, although the
 * snapshot is from before the TRUNCATE.
 */
import type { QueryResult } from 'pg';
import { isStatementError, type Pool, type PoolClient } from '#shared/postgres/postgres.ts';
import { RowCursor } from '#shared/postgres/row-cursor.ts';
import { withDeadlineOr } from '#shared/waiting.ts';
import { AlreadySeen } from '../channels/already-seen.ts';
import { Values } from '../filter/row-filter.ts';
import type { LoadedSet, SetSnapshot } from './loaded-set.ts';
import { accessShare } from './snapshot-transaction.ts';

/** the number of connections in the pool, and of transactions at the same time */
export const setConnections = 3;
const maxTogether = 100;
const lockMs = 1_000;
/** the time limit for each answer of Postgres */
const answerMs = 5_000;
/**
 * the time limit for all sets of a transaction. It is longer than the time that clients wait for a set: a large set is
 * then loaded when its clients try again.
 */
const deadlineMs = 30_000;
const fetchRows = 10_000;
const maxFetchCharacters = 4 * 1024 * 1024;

interface Job {
  set: LoadedSet;
  resolve: (result: { values: Values; snapshot: SetSnapshot }) => void;
  reject: (error: unknown) => void;
}

export class SetLoader {
  readonly #pool: Pool;
  readonly #queue: Job[] = [];
  #running = 0;

  constructor(pool: Pool) {
    this.#pool = pool;
  }

  /** Rejects if Postgres refuses the query, does not answer within 5 s, or is not done after 30 s. */
  load(set: LoadedSet): Promise<{ values: Values; snapshot: SetSnapshot }> {
    return new Promise((resolve, reject) => {
      this.#queue.push({ set, resolve, reject });
      // sets that are requested in the same turn of the event loop share a transaction
      setImmediate(() => this.#next());
    });
  }

  #next(): void {
    if (this.#running >= setConnections || this.#queue.length === 0) return;
    this.#running++;
    void this.#run(this.#queue.splice(0, maxTogether)).finally(() => {
      this.#running--;
      this.#next();
    });
  }

  async #run(jobs: Job[]): Promise<void> {
    const left = new Set(jobs);
    try {
      await withDeadlineOr(this.#read(jobs, left), deadlineMs, () => new Error('sets took too long to be read'));
    } catch (error) {
      // the error may come from one set, and the others must not fail because of it: each set is read by itself
      if (left.size > 1 && isStatementError(error)) await Promise.all([...left].map((job) => this.#run([job])));
      else for (const job of left) job.reject(error);
    }
  }

  async #read(jobs: readonly Job[], left: Set<Job>): Promise<void> {
    const client = await this.#pool.connect();
    let failure: Error | undefined;
    try {
      const snapshot = await answered(begin(client, jobs));
      for (const job of jobs) {
        const values = await valuesOf(client, job.set);
        const { seq, seen, unnumbered } = snapshot;
        left.delete(job);
        job.resolve({ values, snapshot: { seq, alreadySeen: new AlreadySeen(seen, unnumbered) } });
      }
      await answered(client.query('commit'));
    } catch (error) {
      failure = error as Error;
      if (isStatementError(error)) failure = (await client.query('rollback').catch(() => null)) ? undefined : failure;
      throw error;
    } finally {
      client.release(failure);
    }
  }
}

async function begin(client: PoolClient, jobs: readonly Job[]) {
  const tables = new Map(jobs.flatMap(({ set }) => set.parts.map(({ source: { table } }) => [table.id, table])));
  const locks = [...tables.values()].map((table) => accessShare(table, lockMs));
  await client.query(`begin isolation level repeatable read, read only; ${locks.join('; ')}`);
  const { rows }: QueryResult<{ seq: string; seen: string; unnumbered: string }> = await client.query(
    `select l.next_seq - 1 as seq, pg_current_snapshot()::text as seen,
            (select count(*) from plank.between(l.snap, pg_current_snapshot())) as unnumbered
     from plank.leader l`,
  );
  const { seq, seen, unnumbered } = rows[0]!;
  return { seq: Number(seq), seen, unnumbered: Number(unnumbered) };
}

async function valuesOf(client: PoolClient, { source }: LoadedSet): Promise<Values> {
  const values = new Values();
  const { text, values: parameters } = source.query;
  const cursor = new RowCursor<{ value: string }>(
    client,
    { text, values: parameters },
    maxFetchCharacters,
    ({ value }) => value.length,
  );
  for (let more = true; more; ) {
    const page = await answered(cursor.fetch(fetchRows));
    for (const { value } of page.rows) values.add(value, source.column.codec);
    more = page.more;
  }
  await answered(cursor.close());
  return values;
}

const answered = <Answer>(answer: Promise<Answer>) =>
  withDeadlineOr(answer, answerMs, () => new Error('Postgres did not answer in time'));
