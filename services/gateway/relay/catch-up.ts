/**
 * One run of a cursor from its place in the log to the present, at its client's pace: from the
 * ring, else from history. A run ends in one of three ways: the cursor is live; the run was
 * cancelled or the client is gone; or the cursor cannot go on (an interruption).
 *
 *   reads fail, and Postgres does not answer    the run waits and tries again, without a bound
 *   reads fail, but Postgres answers            the run tries again a few times, then gives up
 *   a read returns nothing new                  the run tries again a few times, then gives up
 *   the cursor is ahead of this gateway         the run waits for the next batch, and checks now and
 *                                               then that the position exists
 *   the snapshot was ahead of the log           the run waits for the next batches, and gives up if
 *                                               they do not bring the changes that the snapshot saw
 *   the table's shape or rows changed           interruption; the owner goes on after that change
 *   a set changed between the cursor and now    interruption: the earlier changes cannot be judged by the
 *                                               sets of now (set-search.ts)
 *   a change is undecodable                     if the client keeps rows, or if the row was above
 *                                               the bound: interruption at once; else the run sends
 *                                               nothing up to the change of shape, and ends there
 *                                               with an interruption
 */
import { setImmediate as yieldToIo } from 'node:timers/promises';
import { type Batch, splitAtBreaks, splitBefore } from '#shared/log/batch.ts';
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
import { mayHaveChanged } from './set-search.ts';
import type { SetGuard } from './sets.ts';

/**
 * A run sends this many batches from memory, then lets other work run. A batch holds 256 kB at
 * most, or one large change.
 */
const batchesPerTurn = 16;
/** a run is given up after this many reads in a row that returned nothing new … */
const maxVainReads = 5;
/** … and at least this time without progress, if Postgres answers */
const maxVainMs = 5_000;
/**
 * A snapshot can see changes that have no seq yet. They come with the next drain. If other changes
 * arrived meanwhile, but the snapshot's changes did not arrive within this time, the run gives up.
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

/** A revocation has no table. When policies change, the owner decides at once, wherever its cursor is in the log. */
type TableBreak = Break & { why: Exclude<Break['why'], 'revoke' | 'access'> };

/** The cursor, as a run sees it. */
interface Place {
  readonly channel: Channel;
  readonly outlet: Outlet;
  readonly keepsRows: boolean;
  readonly guards: readonly SetGuard[];
  /** the last seq that was written */
  seq: number;
  goLive(): void;
}

export interface CatchUpDeps {
  present: Present;
  log: Log;
  metrics: GatewayMetrics;
}

/**
 * Reads have returned nothing new for a while although Postgres answers, or the changes that the
 * snapshot saw have not arrived.
 */
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
  /** the run sends nothing up to the next change of shape, because it met an undecodable change */
  #isMute = false;
  #vainReads = 0;
  #vainSince = 0;
  /** when the run began to wait for the changes that a snapshot saw, and this gateway's seq at that time */
  #seam: { since: number; seq: number } | null = null;
  /** ends the wait for the next batch; null: the run does not wait */
  #wake: (() => void) | null = null;

  constructor(deps: CatchUpDeps, cursor: Place, alreadySeen: AlreadySeen | null) {
    this.#deps = deps;
    this.#cursor = cursor;
    this.#alreadySeen = alreadySeen;
  }

  /**
   * Resolves with the reason why the cursor cannot go on; null: the cursor is live, the run was
   * cancelled, or the client is gone. A cancelled run may also resolve with an interruption. Never
   * rejects.
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

  /** Ends the run, as another run begins, or the cursor is paused or ends. */
  cancel(): void {
    this.#isCancelled = true;
    this.#wake?.();
  }

  /** Nobody cancelled the run, and the client is there. */
  get #isWanted(): boolean {
    return !this.#isCancelled && this.#cursor.outlet.open;
  }

  /** Resolves as `run` does. Rejects with PositionGone if the log does not continue there, or with Stuck. */
  async #walk(): Promise<Interruption | null> {
    const { present } = this.#deps;
    const cursor = this.#cursor;
    const { outlet } = cursor;
    let walked = 0;
    const { guards } = cursor;
    if (guards.some(({ since }) => cursor.seq < since) && (await mayHaveChanged(guards, cursor.seq, present)))
      return { reason: 'access', after: null };
    while (this.#isWanted) {
      if (outlet.queuedBytes > 0) {
        // the transports end a client that takes nothing for too long; its closed socket resolves this wait too
        await outlet.drained();
      } else if (cursor.seq === present.seq) {
        if (this.#isMute) return { reason: 'shape', after: present.seq };
        // the snapshot saw changes that have no seq yet: this run must drop them before the cursor is live
        if (!this.#alreadySeen || this.#alreadySeen.done) {
          cursor.goLive();
          return null;
        }
        this.#checkSeam();
        await this.#nextBatch();
      } else if (cursor.seq > present.seq) {
        // the client comes from a replica that was ahead of this one, or the position was never given out
        await present.history.mustExist(cursor.seq);
        if (this.#isWanted && cursor.seq > present.seq) await this.#nextBatch();
      } else {
        const recent = present.ring.find(cursor.seq + 1);
        const interruption = recent ? this.#send(recent.batch) : await this.#readHistory();
        if (interruption) return interruption;
        // a run that passes many batches from memory must not hold up other work
        if (!recent || ++walked < batchesPerTurn) continue;
        walked = 0;
        await yieldToIo();
      }
    }
    return null;
  }

  /** Sends a page of history. Tries again only after a failed read, not after an error while sending. */
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
      const passed = upTo(batch, present.seq);
      if (!passed) break;
      const interruption = this.#send(present.readable(passed));
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

  /** Waits after a read that failed or returned nothing new. Throws Stuck if many tries have not helped. */
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
      throw new Stuck('changes that the snapshot saw have not arrived');
  }

  /** Resolves after the next batch, after `aheadMs` (± 50 %), or when the run is cancelled. */
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

  /** Sends the batch's changes after the cursor's seq, up to the change after which the cursor cannot go on. */
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
  #breakIn(batch: Batch): TableBreak | undefined {
    const { channel, seq } = this.#cursor;
    const { table } = channel;
    if (!table) return undefined;
    return breaksOf(batch).find(
      (one): one is TableBreak =>
        one.relation === table.id && one.why !== 'access' && one.seq > seq && !this.#alreadySeen?.saw(one.xid),
    );
  }

  #pass(batch: Batch): Interruption | null {
    const { outlet, keepsRows } = this.#cursor;
    if (!this.#isMute) {
      const { buffer, undecodable } = this.#framesOf(batch);
      outlet.write(buffer);
      // a client that keeps no rows goes on after the change of shape: it gets its resync there, not here
      if (undecodable && keepsRows) return { reason: 'shape', after: null };
      // only the row above the bound cannot be judged: later changes can, so the owner can go on after this batch
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

/**
 * The batch without its changes after this gateway's seq; null: there are no others. History may be ahead of this
 * gateway, which has not applied the changed policies, revocations and sets in those changes yet.
 */
function upTo(batch: Batch, seq: number): Batch | null {
  if (batch.lastSeq <= seq) return batch;
  return batch.firstSeq > seq ? null : splitBefore(batch, [seq + 1])[0]!;
}
