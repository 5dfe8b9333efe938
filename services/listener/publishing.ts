/**
 * Puts drained changes into the fan-out, in order and without gaps. Only committed changes come here. When the fan-out lacks
 * some (a takeover, a failure, an emptied Redis), or there were too many to hand over at once, they are read from the log:
 * the same bytes with the same seqs. A fan-out that does not answer holds nobody up: gateways read the log, and this tries
 * again on the next call.
 */
import { type Batch, batchesOf, packBatches } from '#shared/log/batch.ts';
import type { Publisher } from '#shared/log/fanout.ts';
import { type LogReader, PositionGone } from '#shared/log/log-reader.ts';
import type { Log } from '#shared/process/logger.ts';
import type { ListenerMetrics } from '#shared/process/metrics.ts';
import { type Changes, Deposed, type Lead } from './sequencer.ts';

/** what an empty fan-out is begun with: enough for gateways to go on without reading the log */
const freshHistory = 10_000;

export class Publishing {
  readonly #publisher: Publisher;
  readonly #reader: LogReader;
  readonly #log: Log;
  readonly #metrics: ListenerMetrics;
  readonly #lead: Lead;
  /** the last seq known to be in the fan-out; null: ask it */
  #publishedSeq: number | null = null;
  /** what was there when that was known last */
  #reachedSeq: number;
  #headSeq: number;
  /** what the fan-out lacks has gone from the log too: it is to be begun anew, behind that */
  #beginsAnew = false;
  readonly #beginEpoch: (above: number, at: number | null) => Promise<void>;

  constructor(options: {
    publisher: Publisher;
    reader: LogReader;
    lead: Lead;
    /** begins an epoch above that number, behind the seq `at`, or the newest */
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

  /** Events that were drained and are not in the fan-out, as far as that is known. */
  get lag(): number {
    return this.#headSeq - this.#reachedSeq;
  }

  /**
   * Publishes what was drained, directly behind what was handed over before, at that time (ms since 1970). Throws Deposed; other
   * failures leave it `behind`.
   */
  async publish({ firstSeq, lastSeq, packed }: Changes, drainedAtMs: number): Promise<void> {
    this.leave(lastSeq);
    if (this.#publishedSeq !== firstSeq - 1) return this.catchUp();
    await this.#attempt(async () => {
      if (!(await this.#put(batchesOf(this.#lead.epoch, firstSeq, packed, drainedAtMs), true))) await this.#catchUp();
    });
  }

  /** Tells of changes up to a seq that were drained and are not handed over: `catchUp` will find them in the log. */
  leave(headSeq: number): void {
    this.#headSeq = Math.max(this.#headSeq, headSeq);
  }

  /** Brings the fan-out up to `headSeq` (or what was handed over), from the log. Throws Deposed. */
  async catchUp(headSeq = 0): Promise<void> {
    this.leave(headSeq);
    await this.#attempt(() => this.#catchUp());
  }

  async #catchUp(): Promise<void> {
    if (this.#publishedSeq === null) {
      await this.#mustBeOurs();
      this.#publishedSeq = await this.#publisher.lastSeq(this.#lead.epoch);
      // what it has taken and not said so in time
      if (this.#publishedSeq) this.#metrics.published.inc(Math.max(0, this.#publishedSeq - this.#reachedSeq));
    }
    if (this.#publishedSeq === null || this.#beginsAnew) {
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
   * The fan-out never has what the log has not, nor anything of a later epoch or term than the one that leads. If it has, it holds another
   * history (of a database that was dropped, or restored to an earlier state), and this one gets an epoch that is later than that.
   * The log is read behind the fan-out, so that what a former leader of this history publishes late is found in it.
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

  /** Throws Deposed: the lead is to be taken anew, in the new epoch. */
  async #otherHistory(epoch: number, data: object): Promise<never> {
    // what this lead has given within the same epoch, the other history may have given to other changes
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
        this.#beginsAnew = true;
        this.#log.warn({ err: error }, 'the log was trimmed before the fan-out had it: it begins anew');
      } else this.#log.debug({ err: error }, 'the fan-out did not take a batch');
    }
  }

  /**
   * False: the fan-out lacks what comes before; `#publishedSeq` then says from where on. `isFresh`: drained just now, and tried for the first
   * time, so that nobody can have published it.
   */
  async #put(batches: readonly Batch[], isFresh = false): Promise<boolean> {
    for (const batch of batches) {
      const result = await this.#publisher.publish(batch, this.#lead.term, this.#beginsAnew);
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
      this.#beginsAnew = false;
      this.#publishedSeq = batch.lastSeq;
      this.#reachedSeq = batch.lastSeq;
      this.#headSeq = Math.max(this.#headSeq, batch.lastSeq);
      this.#metrics.published.inc(batch.lastSeq - batch.firstSeq + 1);
    }
    return true;
  }
}
