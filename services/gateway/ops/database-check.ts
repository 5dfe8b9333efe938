/**
 * What `/health` says of Postgres. What must stay true: any number of probes share one question, and each gets its answer at once, whether
 * Postgres answers or not, as many probes wait for no more than a second.
 */
import { limited, type Pool } from '#shared/postgres/postgres.ts';
import { withDeadlineOr } from '#shared/waiting.ts';

/** the question is given up after this time … */
const timeoutMs = 2_000;
/** … and probes are answered after this one, by what is known otherwise */
const answerMs = 300;

type Reach = 'connected' | 'unreachable';

export class DatabaseCheck {
  readonly #pool: Pool;
  readonly #hearsPostgres: () => boolean;
  #asked: { at: number; reach: Promise<Reach> } | undefined;

  /** `hearsPostgres`: it has answered something else a moment ago. */
  constructor(pool: Pool, hearsPostgres: () => boolean) {
    this.#pool = pool;
    this.#hearsPostgres = hearsPostgres;
  }

  answer(): Promise<Reach> {
    this.#asked ??= { at: performance.now(), reach: this.#ask() };
    const { at, reach } = this.#asked;
    const leftMs = Math.max(0, at + answerMs - performance.now());
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
        this.#asked = undefined;
      });
  }
}
