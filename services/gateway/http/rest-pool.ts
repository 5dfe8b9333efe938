/**
 * REST's connections to Postgres, and the queue for them. Invariants:
 * - For each table, a bounded number of requests waits, each for a bounded time. Any other request gets
 *   BUSY.
 * - The requests of one table never hold all connections. While a lock stops these requests, other tables
 *   are served.
 * - A client that has left holds nothing: its waiting statements are dropped, and its running statement is
 *   cancelled.
 */
import type { Socket } from 'node:net';
import type { QueryResult, QueryResultRow } from 'pg';
import { cancel } from '#shared/postgres/cancel.ts';
import { isStatementError, type Pool, type PoolClient } from '#shared/postgres/postgres.ts';
import { Limiter } from '../bounds/limiter.ts';
import { PlankError } from './errors.ts';

/** for each table, this many requests may wait for each connection of the pool */
const waitingEach = 10;
const waitMs = 2_000;

/** A connection that a request may use for a while. */
export interface Lease {
  client: PoolClient;
  /** Says that the connection cannot be used again, and why. The pool then discards it. */
  giveUp: (why: Error) => void;
  /** Throws if the client has left. Work of several statements calls this between two statements. */
  requireClient: () => void;
}

interface TableQueue {
  limiter: Limiter;
  waiting: number;
}

export class RestPool {
  readonly #pool: Pool;
  readonly #all: Limiter;
  /** by the name of the table; there are at most as many queues as tables */
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

  /** The pool as one request uses it. `socket` is the client's connection. */
  for(socket: Socket): RestQueries {
    return new RestQueries(this, socket);
  }

  /**
   * Runs `work` with a connection, for the client at the other end of `socket`. Throws PlankError BUSY if
   * too many requests wait, or if this one waits for too long.
   */
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
      // A request to cancel that is still on its way would cancel the next statement of this connection.
      // So the pool discards a connection for which such a request may still arrive.
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

/** Runs the statements of one request. */
export class RestQueries {
  readonly #pool: RestPool;
  readonly #socket: Socket;

  constructor(pool: RestPool, socket: Socket) {
    this.#pool = pool;
    this.#socket = socket;
  }

  /**
   * Runs `work` with a connection, when it is this request's turn among the requests for the table. Throws
   * PlankError BUSY.
   */
  use<T>(table: string, work: (lease: Lease) => Promise<T>): Promise<T> {
    return this.#pool.use(this.#socket, table, work);
  }

  /** Runs one statement. Throws PlankError BUSY, or Postgres' own error. */
  query<R extends QueryResultRow>(table: string, text: string, values: unknown[]): Promise<QueryResult<R>> {
    return this.use(table, async ({ client, giveUp }) => {
      try {
        return await client.query<R>(text, values);
      } catch (error) {
        // after an error of the statement itself, the connection can be used again. After any other error,
        // such as a timeout, the answer to this query may still come.
        if (!isStatementError(error)) giveUp(error as Error);
        throw error;
      }
    });
  }
}

const busy = () => new PlankError('BUSY', 'Too many requests of this replica wait for the database: try again');
/** The client has left, so nobody reads this error. */
const left = () => new PlankError('UNAVAILABLE', 'The client has left');

/**
 * For each connection of a client, the callbacks to run when it closes. The connection has one event
 * listener for all requests that are pipelined on it.
 */
const leaving = new WeakMap<Socket, Set<() => void>>();

/**
 * Runs `callback` when the connection closes, or at once if it is closed. Returns a function that removes
 * the callback.
 */
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
