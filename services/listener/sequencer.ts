/**
 * The leader's connection: takes the lead, drains, renews the lease. Every statement that must fail when
 * another listener leads runs here, and carries the term. Statements are short. Both the server and this
 * process limit their time; a connection that stays silent counts as lost.
 */
import { type Client, type Connection, connect, DatabaseError, disconnect } from '#shared/postgres/postgres.ts';
import { withDeadlineOr } from '#shared/waiting.ts';

/**
 * Another listener leads with a later term, or the fan-out held another history and a new epoch began. This
 * listener must take the lead again.
 */
export class Deposed extends Error {
  override readonly name = 'Deposed';
}

export interface Lead {
  term: number;
  epoch: number;
  /** the last seq that was given */
  headSeq: number;
}

export type Drained =
  | { kind: 'nothing' }
  | Changes
  /** too many changes for one answer: they must be read from the log, up to lastSeq */
  | { kind: 'backlog'; lastSeq: number };

/** The changes that a drain gave seqs to. */
export interface Changes {
  kind: 'changes';
  firstSeq: number;
  lastSeq: number;
  transactions: number;
  /** when the first of them was captured, in ms since 1970 */
  firstAtMs: number;
  /**
   * the changes in the format of batches, after 24 bytes of room for a header (shared/log/batch.ts). The
   * publisher may write into this buffer.
   */
  packed: Buffer;
}

function deposedOr(error: unknown): never {
  throw error instanceof DatabaseError && error.code === 'PLK01' ? new Deposed(error.message, { cause: error }) : error;
}

const renewTimeoutMs = 2_000;
/** after a drain's deadline, the server has this long to report that it cancelled the drain */
const silenceMs = 500;
const drainLimit = 5_000;
const drainSql = 'select * from plank.drain($1, $2, $3, $4)';

export class Sequencer {
  readonly #connection: Connection;
  readonly #leaseMs: number;
  /** the statement_timeout that is set on this connection */
  #statementTimeoutMs: number;
  /** the term of the last drain */
  #drainedTerm: number | undefined;
  /** resolves when the connection is free: one statement at a time */
  #turn: Promise<unknown> = Promise.resolve();

  private constructor(connection: Connection, leaseMs: number, statementTimeoutMs: number) {
    this.#connection = connection;
    this.#leaseMs = leaseMs;
    this.#statementTimeoutMs = statementTimeoutMs;
  }

  /** The server cancels statements that take longer than `statementTimeoutMs`, until a drain sets another deadline. */
  static async connect(databaseUrl: string, leaseMs: number, statementTimeoutMs: number): Promise<Sequencer> {
    const connection = await connect(databaseUrl, {
      applicationName: 'plank listener',
      statementTimeoutMs,
    });
    return new Sequencer(connection, leaseMs, statementTimeoutMs);
  }

  /** Aborts with the reason when the connection is lost. */
  get lost(): AbortSignal {
    return this.#connection.lost;
  }

  /** Takes the lead; null while another listener holds a valid lease. */
  async lead(holder: string): Promise<Lead | null> {
    const { rows } = await this.#inTurn(renewTimeoutMs * 2, (client) =>
      client.query<{ term: string | null; epoch: number; next_seq: string }>(
        'select term, epoch, next_seq from plank.lead($1, $2)',
        [holder, `${this.#leaseMs} ms`],
      ),
    );
    const row = rows[0];
    if (!row || row.term === null) return null;
    return { term: Number(row.term), epoch: row.epoch, headSeq: Number(row.next_seq) - 1 };
  }

  /**
   * Gives seqs to the changes in the outbox, commits this, and returns the changes. Throws Deposed. The
   * server cancels the drain after `deadlineMs`, so that the next drain does not wait for it. If no answer
   * has come half a second later, the connection counts as silent.
   */
  async drain(term: number, deadlineMs = 30_000): Promise<Drained> {
    try {
      const [row] = await this.#inTurn(deadlineMs + silenceMs, async (client) => {
        if (deadlineMs !== this.#statementTimeoutMs) await client.query(`set statement_timeout = ${deadlineMs}`);
        this.#statementTimeoutMs = deadlineMs;
        // the first drain of a term may find any number of changes and take long. So it locks the leader's
        // row, and nobody takes the lead during the drain.
        const holds = term !== this.#drainedTerm;
        return client.binaryRows('drain', drainSql, [term, drainLimit, `${this.#leaseMs} ms`, holds]);
      });
      this.#drainedTerm = term;
      const [first, last, transactions, firstAt, packed] = row!;
      if (!last) return { kind: 'nothing' };
      const lastSeq = Number(last.readBigInt64BE());
      if (!first || !packed) return { kind: 'backlog', lastSeq };
      return {
        kind: 'changes',
        firstSeq: Number(first.readBigInt64BE()),
        lastSeq,
        transactions: Number(transactions!.readBigInt64BE()),
        firstAtMs: firstAt!.readDoubleBE(),
        packed,
      };
    } catch (error) {
      return deposedOr(error);
    }
  }

  /** Throws Deposed. */
  async renew(term: number): Promise<void> {
    const { rows } = await this.#inTurn(renewTimeoutMs, (client) =>
      client.query<{ kept: boolean }>('select plank.renew($1, $2) as kept', [term, `${this.#leaseMs} ms`]),
    );
    if (!rows[0]!.kept) throw new Deposed(`term ${term} is over`);
  }

  /** Begins an epoch with a number above `above`, after the seq `at` (null: the newest). Throws Deposed. */
  async beginEpoch(term: number, above: number, at: number | null): Promise<void> {
    await this.#inTurn(renewTimeoutMs, (client) =>
      client.query('select plank.begin_epoch($1, $2, $3)', [term, above, at]).catch(deposedOr),
    );
  }

  /** Gives the lead back, so that a standby takes over at once. */
  async resign(term: number): Promise<void> {
    await this.#inTurn(renewTimeoutMs, (client) => client.query('select plank.resign($1)', [term]));
  }

  async stop(): Promise<void> {
    await disconnect(this.#connection.client);
  }

  /** Runs `work` when the statements before it have ended. `deadlineMs` counts from then. */
  async #inTurn<T>(deadlineMs: number, work: (client: Client) => Promise<T>): Promise<T> {
    const before = this.#turn;
    const { promise, resolve } = Promise.withResolvers<void>();
    this.#turn = promise;
    try {
      await before;
      const silent = () => new Error('the connection to Postgres is silent');
      return await withDeadlineOr(work(this.#connection.client), deadlineMs, silent);
    } finally {
      resolve();
    }
  }
}
