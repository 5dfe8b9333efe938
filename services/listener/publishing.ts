/**
 * Publishes drained changes to the fan-out (shared/log/fanout.ts), in order and without gaps. All
 * these changes are committed. Changes are read from the log, with the same bytes and the same seqs, in two
 * cases: if the fan-out lacks some (after a takeover or a failure, or because Redis was emptied), and if a
 * drain was too large for one answer. If the fan-out does not answer, nobody waits for it: gateways read the
 * log, and the next call publishes again.
 */
import { type Batch, batchesOf, packBatches } from '#shared/log/batch.ts';
import type { Publisher } from '#shared/log/fanout.ts';
import { type LogReader, PositionGone } from '#shared/log/log-reader.ts';
import type { Log } from '#shared/process/logger.ts';
import type { ListenerMetrics } from '#shared/process/metrics.ts';
import { type Changes, Deposed, type Lead } from './sequencer.ts';

/**
 * an empty fan-out first gets this many of the latest changes, so that gateways can continue without
 * reading the log
 */
const freshHistory = 10_000;

export class Publishing {
  readonly #publisher: Publisher;
  readonly #reader: LogReader;
  readonly #log: Log;
  readonly #metrics: ListenerMetrics;
  readonly #lead: Lead;
  /** the last seq that is known to be in the fan-out; null: it is not known, and the fan-out must be asked */
  #publishedSeq: number | null = null;
  /** the last value of `#publishedSeq` that was known */
  #reachedSeq: number;
  #headSeq: number;
  /** The fan-out lacks changes that are no longer in the log either, so the stream starts over after them. */
  #startsOver = false;
  readonly #beginEpoch: (above: number, at: number | null) => Promise<void>;

  constructor(options: {
    publisher: Publisher;
    reader: LogReader;
    lead: Lead;
    /** begins an epoch with a number above `above`, after the seq `at` (null: the newest) */
    beginEpoch: (above: number, at: number | null) => Promise<void>;
    log: Log;
    metrics: ListenerMetrics;
  }) {
    this.#beginEpoch = options.beginEpoch;
    this.#publisher = options.publisher;
    this.#reader = options.reader;
    this.#lead = options.lead;
    this.#log = options.log;
    this.#metrics = options.metrics;
    this.#headSeq = options.lead.headSeq;
    this.#reachedSeq = options.lead.headSeq;
  }

  /** Whether the fan-out lacks a drained change, or may lack one. */
  get behind(): boolean {
    return this.#publishedSeq !== this.#headSeq;
  }

  /** How many drained changes are not in the fan-out, as far as is known. */
  get lag(): number {
    return this.#headSeq - this.#reachedSeq;
  }

  /**
   * Publishes the changes of the latest drain, made at `drainedAtMs` (ms since 1970). Throws Deposed. After
   * any other failure, `behind` is true.
   */
  async publish({ firstSeq, lastSeq, packed }: Changes, drainedAtMs: number): Promise<void> {
    this.leaveToCatchUp(lastSeq);
    if (this.#publishedSeq !== firstSeq - 1) return this.catchUp();
    await this.#attempt(async () => {
      if (!(await this.#put(batchesOf(this.#lead.epoch, firstSeq, packed, drainedAtMs), true))) await this.#catchUp();
    });
  }

  /**
   * Records that changes up to `headSeq` were drained. `catchUp` will publish from the log those that the
   * fan-out lacks.
   */
  leaveToCatchUp(headSeq: number): void {
    this.#headSeq = Math.max(this.#headSeq, headSeq);
  }

  /**
   * Publishes from the log all changes up to `headSeq`, or up to the latest known drain if that is later.
   * Throws Deposed.
   */
  async catchUp(headSeq = 0): Promise<void> {
    this.leaveToCatchUp(headSeq);
    await this.#attempt(() => this.#catchUp());
  }

  async #catchUp(): Promise<void> {
    if (this.#publishedSeq === null) {
      await this.#mustBeOurs();
      this.#publishedSeq = await this.#publisher.lastSeq(this.#lead.epoch);
      // these changes reached the fan-out although it did not answer in time
      if (this.#publishedSeq) this.#metrics.published.inc(Math.max(0, this.#publishedSeq - this.#reachedSeq));
    }
    if (this.#publishedSeq === null || this.#startsOver) {
      const { oldest } = await this.#reader.extent();
      this.#publishedSeq = Math.max(oldest - 1, this.#headSeq - freshHistory);
    }
    this.#reachedSeq = this.#publishedSeq;
    while (this.#publishedSeq < this.#headSeq) {
      for await (const rows of this.#reader.stream(this.#publishedSeq)) {
        if (!(await this.#put(packBatches(this.#lead.epoch, rows)))) break;
      }
    }
  }

  /**
   * Checks that the fan-out holds the history of this database. If it does, the log has every change of
   * the fan-out, and the fan-out has nothing of a later epoch or term than this lead's. If it does not,
   * the database was restored to an earlier state, or the fan-out holds the history of another database,
   * which was dropped. Then this function begins a later epoch and throws Deposed.
   *
   * The function reads the log after the fan-out. A former leader of this history may publish late, and
   * the log must contain the changes of that leader too.
   */
  async #mustBeOurs(): Promise<void> {
    const head = await this.#publisher.head();
    if (!head) return;
    const { epoch, term } = this.#lead;
    if (head.epoch < epoch) return;
    const { newest } = await this.#reader.extent();
    if (head.epoch === epoch && head.term <= term && head.lastSeq <= newest) return;
    await this.#otherHistory(head.epoch, { head, newest });
  }

  /** Begins a new epoch. Always throws Deposed: the lead must be taken again, in that epoch. */
  async #otherHistory(epoch: number, data: object): Promise<never> {
    // If the history in the fan-out has the same epoch as this lead, that history may have given the seqs
    // of this lead to other changes. So the new epoch begins after the last seq from before this lead.
    await this.#beginEpoch(epoch, epoch === this.#lead.epoch ? this.#lead.headSeq : null);
    this.#log.warn(data, 'the fan-out holds another history, beginning a new epoch');
    throw new Deposed('the fan-out holds another history, a new epoch begins');
  }

  async #attempt(work: () => Promise<void>): Promise<void> {
    try {
      await work();
    } catch (error) {
      this.#publishedSeq = null;
      if (error instanceof Deposed) throw error;
      this.#metrics.publishFailures.inc();
      if (error instanceof PositionGone) {
        this.#startsOver = true;
        this.#log.warn({ err: error }, 'the log was purged before the fan-out had it, starting the stream over');
      } else this.#log.debug({ err: error }, 'the fan-out did not take a batch');
    }
  }

  /**
   * Publishes batches. Returns false if the fan-out lacks changes before them; `#publishedSeq` is then the
   * last seq in the fan-out. `isFresh`: the batches come from the latest drain and are published for the
   * first time. If the fan-out has them already, it holds another history.
   */
  async #put(batches: readonly Batch[], isFresh = false): Promise<boolean> {
    for (const batch of batches) {
      const result = await this.#publisher.publish(batch, this.#lead.term, this.#startsOver);
      if (result.status === 'deposed') throw new Deposed('a later term has published');
      if (result.status === 'repeated' && isFresh)
        return this.#otherHistory(batch.epoch, { has: result.lastSeq, next: batch.firstSeq });
      if (result.status === 'gap') {
        this.#metrics.gaps.inc();
        this.#log.warn(
          { has: result.lastSeq, next: batch.firstSeq },
          'the stream lacks changes, publishing them from the log',
        );
        this.#publishedSeq = result.lastSeq;
        this.#reachedSeq = result.lastSeq;
        return false;
      }
      this.#startsOver = false;
      this.#publishedSeq = batch.lastSeq;
      this.#reachedSeq = batch.lastSeq;
      this.#headSeq = Math.max(this.#headSeq, batch.lastSeq);
      this.#metrics.published.inc(batch.lastSeq - batch.firstSeq + 1);
    }
    return true;
  }
}
