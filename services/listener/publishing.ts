/**
 * Publishes drained changes to the fan-out, in order and without gaps. Only committed changes come here. If the
 * fan-out lacks some (after a takeover, a failure, an emptied Redis), or a drain was too large to be returned, the
 * changes are read from the log: the same bytes with the same seqs. A fan-out that does not answer blocks nobody:
 * gateways read the log, and the next call tries again.
 */
import { type Batch, batchesOf, packBatches } from '#shared/log/batch.ts';
import type { Publisher } from '#shared/log/fanout.ts';
import { type LogReader, PositionGone } from '#shared/log/log-reader.ts';
import type { Log } from '#shared/process/logger.ts';
import type { ListenerMetrics } from '#shared/process/metrics.ts';
import { type Changes, Deposed, type Lead } from './sequencer.ts';

/** how many changes an empty fan-out gets first: enough for gateways to continue without reading the log */
const freshHistory = 10_000;

export class Publishing {
  readonly #publisher: Publisher;
  readonly #reader: LogReader;
  readonly #log: Log;
  readonly #metrics: ListenerMetrics;
  readonly #lead: Lead;
  /** the last seq known to be in the fan-out; null: not known, ask the fan-out */
  #publishedSeq: number | null = null;
  /** the last value of `#publishedSeq` that was known */
  #reachedSeq: number;
  #headSeq: number;
  /** The missing changes are no longer in the log either. The stream starts over after them. */
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

  /** The fan-out lacks something that was drained. */
  get behind(): boolean {
    return this.#publishedSeq !== this.#headSeq;
  }

  /** How many drained changes are not in the fan-out, as far as is known. */
  get lag(): number {
    return this.#headSeq - this.#reachedSeq;
  }

  /**
   * Publishes the changes of the latest drain, made at `drainedAtMs` (ms since 1970). Throws Deposed; after other
   * failures it is `behind`.
   */
  async publish({ firstSeq, lastSeq, packed }: Changes, drainedAtMs: number): Promise<void> {
    this.leaveToCatchUp(lastSeq);
    if (this.#publishedSeq !== firstSeq - 1) return this.catchUp();
    await this.#attempt(async () => {
      if (!(await this.#put(batchesOf(this.#lead.epoch, firstSeq, packed, drainedAtMs), true))) await this.#catchUp();
    });
  }

  /**
   * Records that changes up to `headSeq` were drained. `catchUp` will read from the log those that were not
   * published.
   */
  leaveToCatchUp(headSeq: number): void {
    this.#headSeq = Math.max(this.#headSeq, headSeq);
  }

  /** Publishes from the log everything up to `headSeq`, or to the latest drain that is known. Throws Deposed. */
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
   * The fan-out never holds a change that the log lacks, nor anything of a later epoch or term than this lead's. If
   * it does, it holds another history (of a database that was dropped, or restored to an earlier state), and this
   * history gets a later epoch. The log is read after the fan-out, so that it contains whatever a former leader of
   * this history publishes late.
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
    // within the same epoch, the other history may have given this lead's seqs to other changes
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
   * Returns false if the fan-out lacks changes before these batches; `#publishedSeq` is then the last one that it
   * has. `isFresh`: the batches are of the latest drain and sent for the first time, so that nobody else can have
   * published them.
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
