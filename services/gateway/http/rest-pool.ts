/**
 * The connections of REST, and who waits for one: a bounded number of requests, each for a bounded time. A request that would
 * wait for longer is told that this replica is busy. The requests of one table never take all connections: while a lock stops
 * them, the other tables are served.
 */
import type { QueryResult, QueryResultRow } from 'pg';
import { isStatementError, type Pool, type PoolClient } from '#shared/postgres/postgres.ts';
import { Limiter } from '../bounds/limiter.ts';
import { PlankError } from './errors.ts';

/** requests that may wait for one table, for each connection */
const waitingEach = 10;
const waitMs = 2_000;

export class RestPool {
  readonly #pool: Pool;
  readonly #all: Limiter;
  /** by the table's name; as many as there are tables */
  readonly #byTable = new Map<string, { limiter: Limiter; waiting: number }>();
  readonly #maxOfTable: number;
  readonly #maxWaiting: number;

  constructor(pool: Pool) {
    this.#pool = pool;
    const { max } = pool.options;
    this.#all = new Limiter(max);
    this.#maxOfTable = Math.ceil((max * 3) / 4);
    this.#maxWaiting = waitingEach * max;
  }

  /** Runs `work` with a connection. `giveUp` says that the connection is not whole. Throws PlankError BUSY. */
  async use<T>(table: string, work: (client: PoolClient, giveUp: (why: Error) => void) => Promise<T>): Promise<T> {
    const own = this.#of(table);
    if (own.waiting >= this.#maxWaiting) throw busy();
    const late = new AbortController();
    const timer = setTimeout(() => late.abort(busy()), waitMs);
    own.waiting++;
    let begun = false;
    const begin = () => {
      if (begun) return;
      begun = true;
      clearTimeout(timer);
      own.waiting--;
    };
    const run = async () => {
      begin();
      const client = await this.#pool.connect();
      let broken: Error | undefined;
      try {
        return await work(client, (why) => {
          broken = why;
        });
      } finally {
        client.release(broken);
      }
    };
    try {
      return await own.limiter.run(() => this.#all.run(run, late.signal), late.signal);
    } finally {
      begin();
    }
  }

  /** One statement. */
  query<R extends QueryResultRow>(table: string, text: string, values: unknown[]): Promise<QueryResult<R>> {
    return this.use(table, async (client, giveUp) => {
      try {
        return await client.query<R>(text, values);
      } catch (error) {
        // what Postgres refuses leaves the connection whole; after silence it may still answer the former query
        if (!isStatementError(error)) giveUp(error as Error);
        throw error;
      }
    });
  }

  #of(table: string): { limiter: Limiter; waiting: number } {
    let own = this.#byTable.get(table);
    if (!own) {
      own = { limiter: new Limiter(this.#maxOfTable), waiting: 0 };
      this.#byTable.set(table, own);
    }
    return own;
  }
}

const busy = () => new PlankError('BUSY', 'Too many requests wait for the database here: try again');
