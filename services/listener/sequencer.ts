/**
 * The leader's connection: takes the lead, drains, renews. Everything that must be refused when another leads goes through
 * here, with the term. Statements are short and have a deadline on both ends; a silent connection counts as lost.
 */
import { type Client, type Connection, connect, DatabaseError, disconnect } from '#shared/postgres/postgres.ts';
import { withDeadlineOr } from '#shared/waiting.ts';

/** Another listener leads with a later term, or the history is another: the lead is to be taken anew. */
export class Deposed extends Error {
  override readonly name = 'Deposed';
}

export interface Lead {
  term: number;
  epoch: number;
  /** the last seq given so far */
  headSeq: number;
}

export type Drained =
  | { kind: 'nothing' }
  | Changes
  /** too many for one answer: to be read from the log, up to lastSeq */
  | { kind: 'backlog'; lastSeq: number };

/** What a drain has given seqs to. */
export interface Changes {
  kind: 'changes';
  firstSeq: number;
  lastSeq: number;
  transactions: number;
  /** when the first was captured, in ms since 1970 */
  firstAtMs: number;
  /** one behind the other, as they are in batches, behind room for a header; whoever publishes them may take it as it is */
  packed: Buffer;
}

function deposedOr(error: unknown): never {
  throw error instanceof DatabaseError && error.code === 'PLK01' ? new Deposed(error.message, { cause: error }) : error;
}

const renewTimeoutMs = 2_000;
/** how long after a drain's deadline the server's word of it is waited for */
const silenceMs = 500;
const drainLimit = 5_000;
const drainSql = 'select * from plank.drain($1, $2, $3, $4)';

export class Sequencer {
  readonly #connection: Connection;
  readonly #leaseMs: number;
  /** how long the server lets a statement of this connection take */
  #statementTimeoutMs: number;
  /** of the last drain */
  #drainedTerm: number | undefined;
  /** settles when the connection is free: one statement at a time */
  #turn: Promise<unknown> = Promise.resolve();

  private constructor(connection: Connection, leaseMs: number, statementTimeoutMs: number) {
    this.#connection = connection;
    this.#leaseMs = leaseMs;
    this.#statementTimeoutMs = statementTimeoutMs;
  }

  /** The server ends statements that take longer than `statementTimeoutMs`, until a drain has another deadline. */
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

  /** The lead, or null while another holds a valid lease. */
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
   * Gives the next seqs. What it returns is committed. Throws Deposed. The server gives it up at `deadlineMs`, so that the next one does
   * not wait behind it; a little later the connection counts as silent.
   */
  async drain(term: number, deadlineMs = 30_000): Promise<Drained> {
    try {
      const [row] = await this.#inTurn(deadlineMs + silenceMs, async (client) => {
        if (deadlineMs !== this.#statementTimeoutMs) await client.query(`set statement_timeout = ${deadlineMs}`);
        this.#statementTimeoutMs = deadlineMs;
        // how much the first of a term finds, and how long that takes, nobody knows
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

  /** Begins an epoch with a number above this one, behind the seq `at` or the newest. Throws Deposed. */
  async beginEpoch(term: number, above: number, at: number | null): Promise<void> {
    await this.#inTurn(renewTimeoutMs, (client) =>
      client.query('select plank.begin_epoch($1, $2, $3)', [term, above, at]).catch(deposedOr),
    );
  }

  /** Lets a standby take over at once. */
  async resign(term: number): Promise<void> {
    await this.#inTurn(renewTimeoutMs, (client) => client.query('select plank.resign($1)', [term]));
  }

  async stop(): Promise<void> {
    await disconnect(this.#connection.client);
  }

  /** Runs one statement when the ones before it are done; from then on it has `deadlineMs`. */
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
