/**
 * One run of a cursor from its place in the log to the present, at its client's pace: from the
 * ring, else from history. A run ends in one of three ways: the cursor is live; the run was
 * cancelled or the client is gone; or the cursor cannot go on (an interruption).
 *
 *   reads fail, and so does Postgres            the run waits and tries again, without a bound
 *   reads fail, but Postgres answers            tried again a few times, then given up
 *   a read returns nothing new                  the same
 *   the cursor is ahead of this gateway         waits for the next batch, and checks now and then
 *                                               that the position exists
 *   the snapshot was ahead of the log           waits for the next batches; given up if they do not
 *                                               bring what the snapshot saw
 *   the table's shape or rows changed           interruption; the owner goes on after that change
 *   a change is undecodable                     interruption at once where the client keeps rows,
 *                                               or where the row was above the bound; else nothing
 *                                               is sent up to the change of shape, which is the
 *                                               interruption
 */
import { setImmediate as yieldToIo } from 'node:timers/promises';
import { type Batch, splitAtBreaks } from '#shared/log/batch.ts';
import { PositionGone } from '#shared/log/log-reader.ts';
import type { Log } from '#shared/process/logger.ts';
import type { GatewayMetrics } from '#shared/process/metrics.ts';
import { Backoff, sleep } from '#shared/waiting.ts';
import type { ResyncReason } from '#shared/wire.ts';
import type { AlreadySeen } from '../channels/already-seen.ts';
import { type Break, breaksOf } from '../channels/change.ts';
import type { Channel } from '../channels/channel.ts';
import type { Frames } from '../channels/ring.ts';
import type { Outlet } from './outlet.ts';
import type { Present } from './present.ts';

/**
 * batches in memory that one run passes before others get their turn; a batch holds 256 kB at most,
 * or one large change
 */
const batchesPerTurn = 16;
/** a run is given up after this many reads in a row that returned nothing new … */
const maxVainReads = 5;
/** … and this time without progress, while Postgres answers */
const maxVainMs = 5_000;
/**
 * the unnumbered changes that a snapshot saw come with the next drain. If later changes have come
 * for this long and those have not, the cursor gives up.
 */
const maxSeamMs = 30_000;
/** between two checks that a position ahead of this gateway exists */
const aheadMs = 1_000;

/** Why a cursor cannot go on. */
export interface Interruption {
  reason: ResyncReason;
  /** the seq after which the log can be followed again; null: unknown, so only changes from now on follow */
  after: number | null;
}

/** The cursor, as a run sees it. */
interface Place {
  readonly channel: Channel;
  readonly outlet: Outlet;
  readonly keepsRows: boolean;
  /** the last seq that was written */
  seq: number;
  goLive(): void;
}

export interface CatchUpDeps {
  present: Present;
  log: Log;
  metrics: GatewayMetrics;
}

/** Reads have returned nothing new for a while although Postgres answers, or awaited changes have not come. */
class Stuck extends Error {
  override readonly name = 'Stuck';
}

export class CatchUp {
  readonly #deps: CatchUpDeps;
  readonly #cursor: Place;
  /** what a snapshot contains; null: there was none */
  readonly #alreadySeen: AlreadySeen | null;
  readonly #backoff = new Backoff(50, 2_000);
  #isCancelled = false;
  /** nothing is sent up to the next change of shape: a change before it is undecodable */
  #isMute = false;
  #vainReads = 0;
  #vainSince = 0;
  /** when the run began to wait for what a snapshot saw, and where the log was then */
  #seam: { since: number; seq: number } | null = null;
  /** ends the wait for the next batch; null: the run does not wait */
  #wake: (() => void) | null = null;

  constructor(deps: CatchUpDeps, cursor: Place, alreadySeen: AlreadySeen | null) {
    this.#deps = deps;
    this.#cursor = cursor;
    this.#alreadySeen = alreadySeen;
  }

  /**
   * Resolves with why the cursor cannot go on; null: it is live, or the run was cancelled, or the
   * client is gone. Never rejects. A run that was cancelled may resolve with either.
   */
  async run(): Promise<Interruption | null> {
    const { log, metrics } = this.#deps;
    metrics.catchingUp.inc();
    let interruption: Interruption | null;
    try {
      interruption = await this.#walk();
    } catch (error) {
      interruption = { reason: 'retention', after: null };
      if (error instanceof Stuck) {
        metrics.catchUpsGivenUp.inc();
        log.warn({ err: error, channel: this.#cursor.channel.key }, 'gave up a subscription that could not catch up');
      } else if (!(error instanceof PositionGone)) log.error({ err: error }, 'could not catch up');
    } finally {
      metrics.catchingUp.dec();
    }
    return interruption;
  }

  /** Another run begins, or the cursor ends. */
  cancel(): void {
    this.#isCancelled = true;
    this.#wake?.();
  }

  /** Nobody cancelled the run, and the client is there. */
  get #isWanted(): boolean {
    return !this.#isCancelled && this.#cursor.outlet.open;
  }

  /** Resolves with why it ends here; null: live or cancelled. Throws PositionGone and Stuck. */
  async #walk(): Promise<Interruption | null> {
    const { present } = this.#deps;
    const cursor = this.#cursor;
    const { outlet } = cursor;
    let walked = 0;
    while (this.#isWanted) {
      if (outlet.queuedBytes > 0) {
        // the transports end clients that take nothing for too long, which resolves this as well
        await outlet.drained();
      } else if (cursor.seq === present.seq) {
        if (this.#isMute) return { reason: 'shape', after: present.seq };
        // changes that the snapshot saw and the log has not numbered yet must be dropped before the cursor is live
        if (!this.#alreadySeen || this.#alreadySeen.done) {
          cursor.goLive();
          return null;
        }
        this.#checkSeam();
        await this.#nextBatch();
      } else if (cursor.seq > present.seq) {
        // another replica was further on, or the position is made up
        await present.history.mustExist(cursor.seq);
        if (this.#isWanted && cursor.seq > present.seq) await this.#nextBatch();
      } else {
        const recent = present.ring.find(cursor.seq + 1);
        const interruption = recent ? this.#send(recent.batch) : await this.#readHistory();
        if (interruption) return interruption;
        // a long way through memory must not hold up the others
        if (!recent || ++walked < batchesPerTurn) continue;
        walked = 0;
        await yieldToIo();
      }
    }
    return null;
  }

  /** Sends a page of history. Only a failed read is tried again: what is thrown while sending is no reason to. */
  async #readHistory(): Promise<Interruption | null> {
    const { present } = this.#deps;
    const cursor = this.#cursor;
    const { outlet, seq } = cursor;
    let batches: Batch[] = [];
    let failure: unknown;
    try {
      batches = await present.history.read(seq, present.epoch);
    } catch (error) {
      failure = error;
      if (error instanceof PositionGone) {
        const later = await present.history.advancePast(seq).catch((cause: unknown) => {
          failure = cause;
        });
        if (later === null) throw error;
        if (later !== undefined && this.#isWanted) cursor.seq = later;
      }
    }
    for (const [i, batch] of batches.entries()) {
      if (!this.#isWanted) return null;
      if (batch.lastSeq <= cursor.seq) continue;
      const interruption = this.#send(present.readable(batch));
      if (interruption) return interruption;
      if (outlet.queuedBytes === 0) continue;
      if (!(await present.heldPages.until(() => outlet.drained(), batches.slice(i + 1)))) break;
    }
    if (cursor.seq !== seq) {
      this.#backoff.reset();
      this.#vainReads = 0;
    } else if (this.#isWanted) await this.#retryLater(failure);
    return null;
  }

  /** A read returned nothing new. Throws Stuck where trying again has not helped. */
  async #retryLater(failure: unknown): Promise<void> {
    const { present, log } = this.#deps;
    const now = performance.now();
    if (this.#vainReads++ === 0) this.#vainSince = now;
    log.debug({ err: failure }, 'could not read history, trying again');
    if (this.#vainReads >= maxVainReads && now - this.#vainSince >= maxVainMs) {
      if (await present.history.answers()) throw new Stuck('history cannot be read on from here', { cause: failure });
      this.#vainReads = 0;
    }
    await sleep(this.#backoff.next());
  }

  #checkSeam(): void {
    const { seq } = this.#deps.present;
    const now = performance.now();
    this.#seam ??= { since: now, seq };
    if (seq > this.#seam.seq && now - this.#seam.since >= maxSeamMs)
      throw new Stuck('changes that the snapshot saw have not come');
  }

  /** Resolves after the next batch, after a while, or when the run is cancelled. */
  #nextBatch(): Promise<void> {
    return new Promise((resolve) => {
      const timer = setTimeout(() => this.#wake?.(), aheadMs * (0.5 + Math.random()));
      const wake = () => {
        clearTimeout(timer);
        forget();
        this.#wake = null;
        resolve();
      };
      const forget = this.#deps.present.onNextBatch(wake);
      this.#wake = wake;
    });
  }

  /** Sends the batch's changes after the cursor, up to where the cursor cannot go on. */
  #send(batch: Batch): Interruption | null {
    const stop = this.#breakIn(batch);
    if (!stop) return this.#pass(batch);
    for (const part of splitAtBreaks(batch)) {
      if (part.lastSeq <= this.#cursor.seq) continue;
      const interruption = part.firstSeq < stop.seq ? this.#pass(part) : null;
      if (interruption) return interruption;
      if (part.lastSeq >= stop.seq) break;
    }
    return { reason: stop.why, after: stop.seq };
  }

  /** The first change in the batch that makes the client's rows void. */
  #breakIn(batch: Batch): Break | undefined {
    const { channel, seq } = this.#cursor;
    const { table } = channel;
    if (!table) return undefined;
    return breaksOf(batch).find(
      (one) => one.relation === table.id && one.seq > seq && !this.#alreadySeen?.saw(one.xid),
    );
  }

  #pass(batch: Batch): Interruption | null {
    const { outlet, keepsRows } = this.#cursor;
    if (!this.#isMute) {
      const { buffer, undecodable } = this.#framesOf(batch);
      outlet.write(buffer);
      // a client that keeps no rows goes on after the change of shape, and is sent the resync there
      if (undecodable && keepsRows) return { reason: 'shape', after: null };
      // after a row above the bound, other changes can be judged
      if (undecodable === 'left out') return { reason: 'shape', after: batch.lastSeq };
      if (undecodable) this.#isMute = true;
    }
    this.#cursor.seq = batch.lastSeq;
    return null;
  }

  #framesOf(batch: Batch): Frames {
    const { channel, seq } = this.#cursor;
    const recent = this.#deps.present.ring.find(batch.firstSeq);
    const isWhole = batch.firstSeq === seq + 1 && (!this.#alreadySeen || this.#alreadySeen.done);
    return isWhole && recent?.batch === batch
      ? channel.framesOf(recent)
      : channel.framesAfter(batch, seq, this.#alreadySeen);
  }
}
