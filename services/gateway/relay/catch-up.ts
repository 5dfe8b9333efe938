/**
 * Takes subscriptions from their cursors to the present, each at its own pace: from the ring, else from history. A run ends in one of
 * three ways: the subscription is live; it has ended or another run has begun; or its owner is told that it cannot go on.
 *
 *   reads fail, Postgres does not answer either   the run waits and tries again, without a bound
 *   reads fail, Postgres answers otherwise        tried again a few times, then given up
 *   a read brings nothing that is new             the same
 *   ahead of this gateway                         waits for the next batch, and asks now and then whether the position exists
 *   rows ahead of the log (skip)                  waits for the next batches; given up where those have not brought it
 *   the table's shape or rows changed             the owner is told, and goes on behind that
 *   a change cannot be judged                     a client that keeps rows is told at once, and so is one that goes on behind a row
 *                                                 above the bound; else nothing is sent up to the change of shape, of which it is told
 */
import { setImmediate as yieldToIo } from 'node:timers/promises';
import { type Batch, splitAtBreaks } from '#shared/log/batch.ts';
import { PositionGone } from '#shared/log/log-reader.ts';
import type { Log } from '#shared/process/logger.ts';
import type { GatewayMetrics } from '#shared/process/metrics.ts';
import { Backoff, sleep } from '#shared/waiting.ts';
import { type Break, breaksOf } from '../channels/change.ts';
import type { Frames, Ring } from '../channels/ring.ts';
import { FilteredChannel } from '../channels/rows-channel.ts';
import type { Gone, Subscription } from './cursor.ts';
import type { History } from './history.ts';

/** of memory that one subscription walks through before others get their turn; a batch holds 256 kB at most, or one large change */
const batchesPerTurn = 16;
/** a run is given up after this many reads in a row that brought nothing … */
const maxVainReads = 5;
/** … and this time without progress, while Postgres answers */
const maxVainMs = 5_000;
/** a snapshot's unnumbered changes come with the next drain: later ones have come for this long, and they have not */
const maxSkipMs = 30_000;
/** between two looks at whether the position that a subscription waits for exists */
const aheadMs = 1_000;

/** Where the log of this gateway is. */
interface Present {
  readonly epoch: number;
  readonly seq: number;
  goLive(subscription: Subscription): void;
  /** a batch of history as it may be read at this moment */
  readable(batch: Batch): Batch;
}

/** Why a subscription cannot go on, and behind which seq it can begin anew; null: not known. */
interface Stop {
  why: Gone;
  behind: number | null;
}

/** Reads have brought nothing for a while though Postgres answers, or what was waited for has not come. */
class Stuck extends Error {
  override readonly name = 'Stuck';
}

/** One run of one subscription. */
interface Run {
  /** still the subscription's last run, and somebody there to write to */
  mine(): boolean;
  /** nothing is sent up to the next change of shape: something before it cannot be judged */
  isMute: boolean;
  readonly backoff: Backoff;
  vainReads: number;
  vainSince: number;
  /** when it began to wait for what a snapshot saw, and where the log was then */
  waiting: { since: number; seq: number } | null;
}

export class CatchUp {
  readonly #options: { history: History; ring: Ring; present: Present; log: Log; metrics: GatewayMetrics };
  /** ends the waits for the next batch */
  readonly #ahead = new Set<Subscription>();

  constructor(options: { history: History; ring: Ring; present: Present; log: Log; metrics: GatewayMetrics }) {
    this.#options = options;
  }

  /**
   * Takes a subscription from behind the seq `from` to live. Resolves when it is live, gone, or overtaken by another run; never
   * rejects.
   */
  async run(subscription: Subscription, from: number): Promise<void> {
    const { log, metrics } = this.#options;
    this.wake(subscription);
    const number = ++subscription.run;
    const run: Run = {
      mine: () => subscription.run === number && subscription.outlet.open,
      isMute: false,
      backoff: new Backoff(50, 2_000),
      vainReads: 0,
      vainSince: 0,
      waiting: null,
    };
    subscription.state = 'catching-up';
    subscription.cursor = from;
    if (subscription.began < 0) subscription.began = from;
    metrics.catchingUp.inc();
    let stop: Stop | null = null;
    try {
      stop = await this.#walk(subscription, run);
    } catch (error) {
      stop = { why: 'retention', behind: null };
      if (error instanceof Stuck) {
        metrics.catchUpsGivenUp.inc();
        log.warn({ err: error, channel: subscription.channel.key }, 'gave up a subscription that could not catch up');
      } else if (!(error instanceof PositionGone)) log.error({ err: error }, 'could not catch up');
    } finally {
      metrics.catchingUp.dec();
    }
    if (stop && run.mine()) subscription.listeners.onGone(stop.why, stop.behind);
  }

  /** Ends a subscription's wait for the next batch. */
  wake(subscription: Subscription): void {
    if (!this.#ahead.delete(subscription)) return;
    subscription.wake?.();
    subscription.wake = null;
  }

  /** A batch has come. */
  wakeAll(): void {
    for (const subscription of this.#ahead) this.wake(subscription);
  }

  /** Resolves with why it ends here; null: it is live or overtaken. Throws PositionGone and Stuck. */
  async #walk(subscription: Subscription, run: Run): Promise<Stop | null> {
    const { history, present } = this.#options;
    const { outlet } = subscription;
    let walked = 0;
    while (run.mine()) {
      if (outlet.queuedBytes > 0) {
        // the transports end clients that take nothing for too long, which resolves this as well
        await outlet.drained();
      } else if (subscription.cursor === present.seq) {
        if (run.isMute) return { why: 'shape', behind: present.seq };
        // what a snapshot saw and the log has not numbered yet must be dropped before this is live
        if (!subscription.skip || subscription.skip.done) {
          present.goLive(subscription);
          return null;
        }
        this.#checkSkip(run);
        await this.#nextBatch(subscription, aheadMs);
      } else if (subscription.cursor > present.seq) {
        // another replica was further on, or the position is made up
        await history.mustExist(subscription.cursor);
        if (run.mine() && subscription.cursor > present.seq) await this.#nextBatch(subscription, aheadMs);
      } else {
        const recent = this.#options.ring.find(subscription.cursor + 1);
        const stop = recent ? this.#send(subscription, run, recent.batch) : await this.#readHistory(subscription, run);
        if (stop) return stop;
        // a long way through memory must not hold the others up
        if (!recent || ++walked < batchesPerTurn) continue;
        walked = 0;
        await yieldToIo();
      }
    }
    return null;
  }

  /** Sends a page of history. What fails is only the read: what is thrown while sending is no reason to try again. */
  async #readHistory(subscription: Subscription, run: Run): Promise<Stop | null> {
    const { history, present } = this.#options;
    const { outlet, cursor } = subscription;
    let batches: Batch[] = [];
    let failure: unknown;
    try {
      batches = await history.read(cursor, present.epoch);
    } catch (error) {
      failure = error;
      if (error instanceof PositionGone) {
        const later = await history.lift(cursor).catch((cause: unknown) => {
          failure = cause;
        });
        if (later === null) throw error;
        if (later !== undefined && run.mine()) subscription.cursor = later;
      }
    }
    for (const batch of batches) {
      if (!run.mine()) return null;
      if (batch.lastSeq <= subscription.cursor) continue;
      const stop = this.#send(subscription, run, present.readable(batch));
      if (stop) return stop;
      await outlet.drained();
    }
    if (subscription.cursor !== cursor) {
      run.backoff.reset();
      run.vainReads = 0;
    } else if (run.mine()) await this.#vain(run, failure);
    return null;
  }

  /** A read has brought nothing. Throws Stuck where that will not change. */
  async #vain(run: Run, failure: unknown): Promise<void> {
    const { history, log } = this.#options;
    const now = performance.now();
    if (run.vainReads++ === 0) run.vainSince = now;
    log.debug({ err: failure }, 'could not read history, trying again');
    if (run.vainReads >= maxVainReads && now - run.vainSince >= maxVainMs) {
      if (await history.answers()) throw new Stuck('history cannot be read on from here', { cause: failure });
      run.vainReads = 0;
    }
    await sleep(run.backoff.next());
  }

  #checkSkip(run: Run): void {
    const { seq } = this.#options.present;
    const now = performance.now();
    run.waiting ??= { since: now, seq };
    if (seq > run.waiting.seq && now - run.waiting.since >= maxSkipMs)
      throw new Stuck('what the snapshot saw has not come');
  }

  /** Resolves behind the next batch, after a while, or where the subscription is paused, overtaken or left before. */
  #nextBatch(subscription: Subscription, ms: number): Promise<void> {
    return new Promise((resolve) => {
      const timer = setTimeout(() => this.wake(subscription), ms * (0.5 + Math.random()));
      subscription.wake = () => {
        clearTimeout(timer);
        resolve();
      };
      this.#ahead.add(subscription);
    });
  }

  /** Sends what of a batch lies behind the cursor, up to where the subscription cannot go on. */
  #send(subscription: Subscription, run: Run, batch: Batch): Stop | null {
    const stop = breakOf(subscription, batch);
    if (!stop) return this.#pass(subscription, run, batch);
    for (const part of splitAtBreaks(batch)) {
      if (part.lastSeq <= subscription.cursor) continue;
      const torn = part.firstSeq < stop.seq ? this.#pass(subscription, run, part) : null;
      if (torn) return torn;
      if (part.lastSeq >= stop.seq) break;
    }
    return { why: stop.why, behind: stop.seq };
  }

  #pass(subscription: Subscription, run: Run, batch: Batch): Stop | null {
    if (!run.isMute) {
      const { buffer, torn } = this.#framesOf(subscription, batch);
      subscription.outlet.write(buffer);
      // whoever keeps no rows goes on behind the change of shape, and hears of it there
      if (torn && subscription.keepsRows) return { why: 'shape', behind: null };
      // behind a row above the bound, more can be judged
      if (torn === 'left out') return { why: 'shape', behind: batch.lastSeq };
      if (torn) run.isMute = true;
    }
    subscription.cursor = batch.lastSeq;
    return null;
  }

  #framesOf({ channel, cursor, skip }: Subscription, batch: Batch): Frames {
    const recent = this.#options.ring.find(batch.firstSeq);
    const isWhole = batch.firstSeq === cursor + 1 && (!skip || skip.done);
    return isWhole && recent?.batch === batch ? channel.framesOf(recent) : channel.framesAfter(batch, cursor, skip);
  }
}

/** What makes the subscription's picture void in the batch first. */
function breakOf({ channel, skip, cursor }: Subscription, batch: Batch): Break | undefined {
  if (!(channel instanceof FilteredChannel)) return undefined;
  const { id } = channel.words.table;
  return breaksOf(batch).find(({ relation, seq, xid }) => relation === id && seq > cursor && !skip?.saw(xid));
}
