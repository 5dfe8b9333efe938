/**
 * Checks for `/health` whether Postgres answers. Invariants: any number of probes share one query. Each
 * probe is answered within 300 ms, even if Postgres is silent, because many probes wait for less than a
 * second.
 */
import { limited, type Pool } from '#shared/postgres/postgres.ts';
import { withDeadlineOr } from '#shared/waiting.ts';

/** the query is given up after this time … */
const timeoutMs = 2_000;
/** … and after this time, a probe is answered by what other queries found */
const answerMs = 300;

type Reach = 'connected' | 'unreachable';

export class DatabaseCheck {
  readonly #pool: Pool;
  readonly #hearsPostgres: () => boolean;
  #query: { startedAt: number; reach: Promise<Reach> } | undefined;

  /** `hearsPostgres` returns whether Postgres answered any other query a moment ago. */
  constructor(pool: Pool, hearsPostgres: () => boolean) {
    this.#pool = pool;
    this.#hearsPostgres = hearsPostgres;
  }

  answer(): Promise<Reach> {
    this.#query ??= { startedAt: performance.now(), reach: this.#ask() };
    const { startedAt, reach } = this.#query;
    const leftMs = Math.max(0, startedAt + answerMs - performance.now());
    return withDeadlineOr(reach, leftMs, () => new Error('Postgres takes long')).catch(() =>
      this.#hearsPostgres() ? 'connected' : 'unreachable',
    );
  }

  #ask(): Promise<Reach> {
    const answer = this.#pool.query(limited(timeoutMs, 'select'));
    return withDeadlineOr(answer, timeoutMs, () => new Error('Postgres does not answer'))
      .then(
        () => 'connected' as const,
        () => 'unreachable' as const,
      )
      .finally(() => {
        this.#query = undefined;
      });
  }
}
