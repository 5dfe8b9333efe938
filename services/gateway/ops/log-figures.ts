/**
 * The state of the log for the console. The replica that serves the page queries Postgres and the fan-out
 * itself. So the console works even if no listener leads, or if Redis or Postgres does not answer.
 */
import type { Tail } from '#shared/log/fanout.ts';
import type { Pool } from '#shared/postgres/postgres.ts';
import { settlesWithin } from '#shared/waiting.ts';

const checkEveryMs = 20_000;
/**
 * a server that has not answered after this time counts as silent: a server that hangs sends not even a
 * refusal. The answer may still come later.
 */
const patienceMs = 2_000;
/** while Postgres is silent, a caller of `refresh` waits only this long */
const silentPatienceMs = 500;
const keptHeads = 10;

interface Log {
  /** the listener with a valid lease; null: none */
  leader: string | null;
  term: number;
  headSeq: number;
  epoch: number;
  /**
   * the number of committed changes without a seq (counted up to 100,000), and the time since the oldest
   * of these changes was captured
   */
  outboxDepth: number;
  outboxOldestSeconds: number;
  logOldestSeconds: number;
  logEvents: number;
  logBytes: number;
}

interface LogRow {
  holder: string | null;
  is_valid: boolean;
  term: string;
  head: string;
  epoch: number;
  outbox_depth: string;
  outbox_oldest: number;
  log_oldest: number;
  log_events: string;
  log_bytes: string;
}

export class LogFigures {
  readonly #pool: Pool;
  readonly #tail: Tail;
  #asking: Promise<void> | undefined;
  #answered: Promise<unknown> = Promise.resolve();
  #checkedAt = Number.NEGATIVE_INFINITY;
  #silentSince: number | null = null;
  /** since when the log has not grown although changes wait; null: it grows, or no changes wait */
  #stuckSince: number | null = null;
  #askedAt = Number.NEGATIVE_INFINITY;
  /**
   * the seqs that the log had reached at Postgres' last answers. A replica's report is some moments old,
   * so the report is compared with the seq of its own time.
   */
  #heads: { at: number; seq: number }[] = [];
  /** null: Postgres does not answer */
  log: Log | null = null;
  /** null: the fan-out does not answer */
  stream: { entries: number; bytes: number } | null = null;
  /** tables that are not captured as they should be, a sentence each */
  problems: readonly string[] = [];

  /** `pool` needs a statement timeout: the queries are repeated, and would pile up on a slow server. */
  constructor(pool: Pool, tail: Tail) {
    this.#pool = pool;
    this.#tail = tail;
  }

  get streamKind(): Tail['kind'] {
    return this.#tail.kind;
  }

  get postgresSilentMs(): number {
    return this.#silentSince === null ? 0 : Math.max(1, performance.now() - this.#silentSince);
  }

  /** For how long nothing has been drained although changes wait. */
  get waitingMs(): number {
    return this.#stuckSince === null ? 0 : performance.now() - this.#stuckSince;
  }

  /** A seq that the log had reached by the time `at`, in ms since 1970; null: not known. */
  headAt(at: number): number | null {
    return this.#heads.findLast((head) => head.at <= at)?.seq ?? null;
  }

  /**
   * Queries Postgres and the fan-out again, unless the last answers are younger than `maxAgeMs` or a query
   * is still running. Waits for the answers for a bounded time. Never rejects.
   */
  async refresh(maxAgeMs: number): Promise<void> {
    if (!this.#asking) {
      if (performance.now() - this.#askedAt < maxAgeMs) return;
      this.#asking = this.#askAll();
      this.#answered = settlesWithin(this.#asking, this.#silentSince === null ? patienceMs : silentPatienceMs);
    }
    await this.#answered;
  }

  async #askAll(): Promise<void> {
    await Promise.all([this.#askPostgres(), this.#askFanout()]);
    this.#askedAt = performance.now();
    this.#asking = undefined;
  }

  async #askPostgres(): Promise<void> {
    const before = this.log;
    const askedAt = performance.now();
    const miss = () => {
      this.log = null;
      this.#silentSince ??= askedAt;
    };
    const late = setTimeout(miss, patienceMs);
    try {
      const { rows } = await this.#pool.query<LogRow>(
        `select l.holder, l.expires_at > clock_timestamp() as is_valid, l.term, l.next_seq - 1 as head, l.epoch,
                  g.outbox_depth, g.outbox_oldest, g.log_oldest, g.log_events, g.log_bytes
           from plank.leader l, plank.gauges() g`,
      );
      this.log = logOf(rows[0]!);
      this.#silentSince = null;
      this.#heads = [...this.#heads, { at: Date.now(), seq: this.log.headSeq }].slice(-keptHeads);
    } catch {
      return miss();
    } finally {
      clearTimeout(late);
    }
    const hasMoved = this.log.headSeq !== before?.headSeq || this.log.epoch !== before.epoch;
    if (this.log.outboxDepth === 0 || hasMoved) this.#stuckSince = null;
    if (this.log.outboxDepth > 0) this.#stuckSince ??= performance.now();
    await this.#check();
  }

  async #check(): Promise<void> {
    if (performance.now() - this.#checkedAt < checkEveryMs) return;
    try {
      const { rows } = await this.#pool.query<{ name: string; problem: string }>(
        'select name, problem from plank.check()',
      );
      this.problems = rows.map(({ name, problem }) => `${name} is not captured as it should be: ${problem}`);
      this.#checkedAt = performance.now();
    } catch {
      // the check is tried again with the next query
    }
  }

  async #askFanout(): Promise<void> {
    const late = setTimeout(() => {
      this.stream = null;
    }, patienceMs);
    this.stream = await this.#tail.size().catch(() => null);
    clearTimeout(late);
  }
}

function logOf(row: LogRow): Log {
  return {
    // the listener writes <name>/<process id>/<start time>
    leader: row.is_valid ? (row.holder?.split('/')[0] ?? null) : null,
    term: Number(row.term),
    headSeq: Number(row.head),
    epoch: row.epoch,
    outboxDepth: Number(row.outbox_depth),
    outboxOldestSeconds: Math.round(row.outbox_oldest * 10) / 10,
    logOldestSeconds: Math.round(row.log_oldest),
    logEvents: Number(row.log_events),
    logBytes: Number(row.log_bytes),
  };
}
