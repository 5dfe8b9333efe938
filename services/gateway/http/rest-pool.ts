/**
 * REST's connections to Postgres, and the queue for them. Invariants:
 * - A bounded number of requests waits, each for a bounded time. A request that would wait longer gets BUSY.
 * - The requests of one table never hold all connections: while a lock stops them, other tables are served.
 * - A client that has left holds nothing: its waiting statement is dropped, its running one is cancelled.
 */
import type { Socket } from 'node:net';
import type { QueryResult, QueryResultRow } from 'pg';
import { cancel } from '#shared/postgres/cancel.ts';
import { isStatementError, type Pool, type PoolClient } from '#shared/postgres/postgres.ts';
import { Limiter } from '../bounds/limiter.ts';
import { PlankError } from './errors.ts';

/** requests that may wait for one table, for each connection of the pool */
const waitingEach = 10;
const waitMs = 2_000;

/** What a request does with a connection. */
export interface Lease {
  client: PoolClient;
  /** The connection cannot be used again. */
  giveUp: (why: Error) => void;
  /** Throws if the client has left: work of several statements calls it between them. */
  requireClient: () => void;
}

interface TableQueue {
  limiter: Limiter;
  waiting: number;
}

export class RestPool {
  readonly #pool: Pool;
  readonly #all: Limiter;
  /** by the table's name; as many as there are tables */
  readonly #byTable = new Map<string, TableQueue>();
  readonly #maxOfTable: number;
  readonly #maxWaiting: number;

  constructor(pool: Pool) {
    this.#pool = pool;
    const { max } = pool.options;
    this.#all = new Limiter(max);
    this.#maxOfTable = Math.ceil((max * 3) / 4);
    this.#maxWaiting = waitingEach * max;
  }

  /** The pool for one request: `socket` is the client's connection. */
  for(socket: Socket): RestQueries {
    return new RestQueries(this, socket);
  }

  /** Runs `work` with a connection, for the client at the other end of `socket`. Throws PlankError BUSY. */
  async use<T>(socket: Socket, table: string, work: (lease: Lease) => Promise<T>): Promise<T> {
    const own = this.#of(table);
    if (own.waiting >= this.#maxWaiting) throw busy();
    const over = new AbortController();
    const timer = setTimeout(() => over.abort(busy()), waitMs);
    const unwatch = onLeave(socket, () => over.abort(left()));
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
      return await this.#run(over.signal, work);
    };
    try {
      return await own.limiter.run(() => this.#all.run(run, over.signal), over.signal);
    } finally {
      begin();
      unwatch();
    }
  }

  async #run<T>(signal: AbortSignal, work: (lease: Lease) => Promise<T>): Promise<T> {
    const client = await this.#pool.connect();
    let broken: Error | undefined;
    let cancelled: Promise<boolean> | undefined;
    const onAbort = () => {
      cancelled = cancel(client);
    };
    signal.addEventListener('abort', onAbort, { once: true });
    try {
      signal.throwIfAborted();
      return await work({
        client,
        giveUp: (why) => {
          broken = why;
        },
        requireClient: () => signal.throwIfAborted(),
      });
    } finally {
      signal.removeEventListener('abort', onAbort);
      // a request to cancel that is still on its way would hit the next statement on this connection
      if (cancelled && !(await cancelled)) broken ??= new Error('a request to cancel may still arrive');
      client.release(broken);
    }
  }

  #of(table: string): TableQueue {
    let own = this.#byTable.get(table);
    if (!own) {
      own = { limiter: new Limiter(this.#maxOfTable), waiting: 0 };
      this.#byTable.set(table, own);
    }
    return own;
  }
}

/** What one request asks of Postgres. */
export class RestQueries {
  readonly #pool: RestPool;
  readonly #socket: Socket;

  constructor(pool: RestPool, socket: Socket) {
    this.#pool = pool;
    this.#socket = socket;
  }

  /**
   * Runs `work` with a connection, when it is this request's turn among those for the table. Throws
   * PlankError BUSY.
   */
  use<T>(table: string, work: (lease: Lease) => Promise<T>): Promise<T> {
    return this.#pool.use(this.#socket, table, work);
  }

  /** One statement. */
  query<R extends QueryResultRow>(table: string, text: string, values: unknown[]): Promise<QueryResult<R>> {
    return this.use(table, async ({ client, giveUp }) => {
      try {
        return await client.query<R>(text, values);
      } catch (error) {
        // after an error of the statement itself the connection can be used; after a silence it may
        // still answer this query
        if (!isStatementError(error)) giveUp(error as Error);
        throw error;
      }
    });
  }
}

const busy = () => new PlankError('BUSY', 'Too many requests of this replica wait for the database: try again');
/** Nobody reads this answer. */
const left = () => new PlankError('UNAVAILABLE', 'The client has left');

/**
 * By connection of a client: what to do when it closes. One listener serves all requests that are
 * pipelined on it.
 */
const leaving = new WeakMap<Socket, Set<() => void>>();

/** Calls back when the connection closes. Returns how to stop that. */
function onLeave(socket: Socket, callback: () => void): () => void {
  if (socket.destroyed) callback();
  let callbacks = leaving.get(socket);
  if (!callbacks) {
    const all = new Set<() => void>();
    socket.once('close', () => {
      for (const each of all) each();
    });
    leaving.set(socket, (callbacks = all));
  }
  callbacks.add(callback);
  return () => void callbacks.delete(callback);
}
