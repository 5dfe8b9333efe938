/**
 * This gateway's own place in the log. The feed makes one sequence of batches without gaps for the
 * hub: from the fan-out and, if the fan-out lacks changes, from the log in Postgres.
 *
 *   tailing  waits for the fan-out. After a quiet moment it asks Postgres whether there is really
 *            nothing new. The answer reveals changes that the fan-out does not bring (the listener
 *            is cut off from Redis, or the stream was trimmed or deleted).
 *   reading  reads the log until the fan-out continues where the log ended, or until the log has
 *            had nothing new for a while.
 *
 * The log is the authority on history. After the database started or was restored, nothing is
 * delivered until a listener leads. If the log ends before this gateway's position in the same
 * epoch, the fan-out's batches of that epoch belong to another history.
 */
import { type Batch, packBatches, splitAtBreaks } from '#shared/log/batch.ts';
import type { Tail } from '#shared/log/fanout.ts';
import { type Epoch, type Extent, type LogReader, NotLed, PositionGone } from '#shared/log/log-reader.ts';
import type { Log } from '#shared/process/logger.ts';
import type { GatewayMetrics } from '#shared/process/metrics.ts';
import { Backoff, once, sleep, withDeadlineOr } from '#shared/waiting.ts';
import type { Position } from '#shared/wire.ts';
import type { Revocations } from '../access/revocations.ts';
import type { Catalog } from '../catalog/catalog.ts';
import { breaksOf } from '../channels/change.ts';
import { applyRights } from './apply-rights.ts';
import type { CanaryWatch } from './canary.ts';
import type { Freshness } from './freshness.ts';
import type { History } from './history.ts';
import type { Hub } from './hub.ts';
import type { Sets } from './sets.ts';
import { Unfinished } from './unfinished.ts';

const quietMs = 500;
const askMs = 1_000;
/** between two reads of the log while the fan-out does not answer */
const readingPauseMs = 100;
/** after the log had changes that the fan-out lacked, the feed reads the log for this long */
const lackingMs = 2_000;
/** a position of an unknown epoch waits this long for this gateway to follow into that epoch, and is then refused */
const judgeMs = 2_000;
/** pause between two checks whether columns were excluded */
const exclusionsMs = 2_000;
/** after this time without an answer from the fan-out or Postgres, the gateway is not ready */
const staleMs = 4_000;

interface FeedOptions {
  tail: Tail;
  reader: LogReader;
  catalog: Catalog;
  hub: Hub;
  history: History;
  canaries: CanaryWatch;
  freshness: Freshness;
  /** null: AUTH=off */
  revocations: Revocations | null;
  sets: Sets | null;
  log: Log;
  metrics: GatewayMetrics;
}

export class Feed {
  readonly #options: FeedOptions;
  readonly #abort = new AbortController();
  /** changes that were read and not delivered yet */
  readonly #unfinished = new Unfinished();
  #epochs: Epoch[] = [];
  #running: Promise<unknown> | undefined;
  #mode: 'tailing' | 'reading' = 'tailing';
  #answeredAt = 0;
  /** when the batches that are being delivered arrived, in ms since 1970 */
  #receivedAtMs = 0;
  /** when the log last had changes that the fan-out lacked */
  #lackedAt = Number.NEGATIVE_INFINITY;
  /** resolves when this gateway has changed to another epoch */
  #following = Promise.withResolvers<void>();

  constructor(options: FeedOptions) {
    this.#options = options;
  }

  /** Resolves when the hub stands at the newest change. Throws when Postgres does not answer. */
  readonly start = once(async () => {
    const { reader, catalog, hub, freshness } = this.#options;
    const askedAt = performance.now();
    const { isLed, ...extent } = await reader.lastExtent();
    this.#epochs = await reader.epochs();
    // after the extent: what changes in between comes again as an event
    await catalog.begin();
    await this.#options.revocations?.load();
    hub.reset(extent.epoch, extent.newest);
    freshness.extent(extent, askedAt);
    if (!isLed) this.#mode = 'reading';
    this.#answered();
    this.#running = Promise.all([this.#run(), this.#watchExclusions()]);
  });

  readonly stop = once(async () => {
    this.#abort.abort();
    await this.#running;
  });

  /** Whether the fan-out or Postgres answered within the last 4 s: then new changes arrive. */
  get fresh(): boolean {
    return performance.now() - this.#answeredAt < staleMs;
  }

  /** Asks Postgres where the log ends, and passes the answer to `freshness`. Throws NotLed if nobody leads. */
  async extent(): Promise<Extent> {
    const { reader, freshness } = this.#options;
    const askedAt = performance.now();
    // Opening a connection can take longer than the query itself. Changes may come from the fan-out meanwhile.
    const { isLed, ...extent } = await withDeadlineOr(
      reader.lastExtent(),
      askMs,
      () => new Error('Postgres is silent'),
    );
    freshness.extent(extent, askedAt);
    this.#answered();
    if (!isLed) throw new NotLed();
    return extent;
  }

  /** The source of changes at the moment: the fan-out (`tailing`), or the log in Postgres (`reading`). */
  get mode(): 'tailing' | 'reading' {
    return this.#mode;
  }

  /**
   * Whether the position belongs to the history that this gateway serves. The position's seq may
   * be purged already, or not reached yet.
   */
  isOfThisHistory(position: Position): boolean {
    const { epoch } = this.#options.hub;
    return position.epoch === epoch || this.#isShared(position);
  }

  /**
   * As isOfThisHistory, but if the position's epoch is newer than this gateway's, waits up to 2 s
   * until this gateway follows into the epoch. Each start of the database begins an epoch, and a
   * client may come from a replica that has followed into the epoch already.
   */
  async judge(position: Position): Promise<boolean> {
    const { hub, reader } = this.#options;
    const deadline = performance.now() + judgeMs;
    const epochs = await reader.epochs().catch(() => null);
    if (epochs && !epochs.some(({ epoch }) => epoch === position.epoch)) return false;
    while (hub.epoch < position.epoch && performance.now() < deadline && !this.#abort.signal.aborted)
      await Promise.race([this.#following.promise, sleep(deadline - performance.now(), this.#abort.signal)]);
    return this.isOfThisHistory(position);
  }

  /** Whether only `judge` can decide, as the position's epoch is newer than this gateway's. */
  isUnheardOf({ epoch }: Position): boolean {
    return epoch > this.#options.hub.epoch;
  }

  /** the last seq that was read */
  get #readTo(): number {
    return this.#unfinished.lastSeq ?? this.#options.hub.seq;
  }

  #followed(): void {
    this.#following.resolve();
    this.#following = Promise.withResolvers();
  }

  #answered(): void {
    this.#answeredAt = performance.now();
  }

  async #run(): Promise<void> {
    const { signal } = this.#abort;
    const backoff = new Backoff(readingPauseMs, 1_000);
    while (!signal.aborted) {
      try {
        if (this.#mode === 'tailing') await this.#tail();
        else await this.#read();
        backoff.reset();
      } catch (error) {
        if (signal.aborted) return;
        if (error instanceof PositionGone) await this.#startOver();
        else if (error instanceof NotLed) {
          this.#mode = 'reading';
          await sleep(readingPauseMs, signal);
        } else {
          this.#options.log.debug({ err: error, mode: this.#mode }, 'could not read the next changes');
          if (this.#mode === 'reading') await sleep(backoff.next(), signal);
          this.#mode = 'reading';
        }
      }
    }
  }

  async #tail(): Promise<void> {
    const { tail } = this.#options;
    const batches = await tail.read(this.#readTo, quietMs, this.#abort.signal);
    if (this.#abort.signal.aborted) return;
    this.#answered();
    this.#receivedAtMs = Date.now();
    if (batches.length === 0) {
      if (await this.#looksBehind()) this.#mode = 'reading';
      return;
    }
    const before = this.#readTo;
    for (const batch of batches) if (!(await this.#accept(batch))) return;
    if (this.#readTo === before) {
      // every batch in the stream is of a former epoch or a distrusted one: the next read would return the same batches
      this.#mode = 'reading';
      await sleep(readingPauseMs, this.#abort.signal);
    }
  }

  /** Resolves with false if batches before this one are missing, else true. */
  async #accept(batch: Batch): Promise<boolean> {
    const { hub } = this.#options;
    if (batch.epoch < hub.epoch || batch.lastSeq <= this.#readTo || this.#isDistrusted(batch.epoch)) return true;
    if (batch.epoch > hub.epoch || batch.firstSeq !== this.#readTo + 1) {
      if (batch.epoch === hub.epoch) this.#options.metrics.gaps.inc();
      this.#mode = 'reading';
      return false;
    }
    await this.#deliver(batch);
    return true;
  }

  #isDistrusted(epoch: number): boolean {
    return epoch === this.#options.history.distrusted;
  }

  async #read(): Promise<void> {
    const { hub, reader, tail, metrics, log } = this.#options;
    const { signal } = this.#abort;
    if (await this.#looksBehind()) {
      this.#lackedAt = performance.now();
      metrics.fallbackReads.inc();
      log.debug({ after: hub.seq }, 'reading the log');
      // the log has the whole transaction
      this.#unfinished.drop();
      for await (const rows of reader.stream(hub.seq)) {
        this.#receivedAtMs = Date.now();
        for (const batch of packBatches(hub.epoch, rows)) await this.#deliver(batch);
        if (signal.aborted) return;
      }
    }
    // the feed returns to the fan-out as soon as the fan-out answers with batches that continue the log
    const batches = await tail.read(this.#readTo, readingPauseMs, signal).catch(() => null);
    if (batches === null) await sleep(readingPauseMs, signal);
    else if (batches.length === 0) {
      if (performance.now() - this.#lackedAt > lackingMs && !(await this.#looksBehind())) this.#mode = 'tailing';
    } else if (this.#isDistrusted(hub.epoch) || batches[0]!.epoch > hub.epoch) {
      // these batches are of another history, or of an epoch that the log does not have yet: the next read would
      // return the same batches
      await sleep(readingPauseMs, signal);
    } else {
      this.#mode = 'tailing';
      this.#receivedAtMs = Date.now();
      for (const batch of batches) if (!(await this.#accept(batch))) return;
    }
  }

  /** Changes before a change of shape are delivered in the old shape, those after it in the new one. */
  async #deliver(batch: Batch): Promise<void> {
    const { hub, canaries, freshness } = this.#options;
    const isReshaped = (of: Batch) => breaksOf(of).some(({ why }) => why === 'shape');
    // changes that were captured before a column was excluded must not show the column
    if (isReshaped(batch)) await this.#untilDone(() => this.#loadFormer());
    for (const part of this.#partsOf(batch)) {
      const altered = isReshaped(part) ? await this.#untilDone(() => this.#options.catalog.load()) : null;
      if (this.#abort.signal.aborted) return;
      const ruled = applyRights(part, this.#options);
      hub.deliver(part, this.#receivedAtMs);
      canaries.delivered(part);
      freshness.delivered(part);
      if (altered) this.#alter(altered, 'shape');
      if (ruled.size > 0) this.#alter(ruled, 'access');
      this.#options.sets?.delivered(part);
    }
    this.#answered();
  }

  /** Before a part is taken, the sets of policies that it changes are made invalid. */
  *#partsOf(batch: Batch): Generator<Batch> {
    const { sets } = this.#options;
    const parts = sets ? sets.parts(this.#unfinished.add(batch, sets.areUsed)) : [batch];
    for (const part of parts) yield* splitAtBreaks(part);
  }

  /** As #isBehind, but resolves with false if Postgres does not answer: then only the fan-out can show new changes. */
  async #looksBehind(): Promise<boolean> {
    try {
      return await this.#isBehind();
    } catch (error) {
      if (error instanceof PositionGone || error instanceof NotLed) throw error;
      this.#options.log.debug({ err: error }, 'could not ask where the log ends');
      return false;
    }
  }

  /** Whether the log has changes after the hub's seq, according to Postgres. Follows the log into a new epoch. */
  async #isBehind(): Promise<boolean> {
    const { hub, reader } = this.#options;
    const { epoch, newest } = await this.extent();
    if (epoch !== hub.epoch) {
      this.#epochs = await reader.epochs();
      this.#unfinished.drop();
      this.#options.sets?.forked();
      if (!this.#isShared(hub)) throw new PositionGone(`seq ${hub.seq} is not part of epoch ${epoch}`);
      const later = this.#epochs.filter((known) => known.epoch > hub.epoch);
      hub.fork(epoch, Math.min(...later.map(({ forkedAt }) => forkedAt)));
      this.#followed();
    }
    if (newest < this.#readTo) throw new PositionGone(`the log ends at ${newest}, before ${this.#readTo}`);
    return newest > hub.seq;
  }

  /** Whether the log contains the position. If the log does not know the epoch, the position is of another database. */
  #isShared({ epoch, seq }: Position): boolean {
    const isKnown = this.#epochs.some((known) => known.epoch === epoch);
    return isKnown && this.#epochs.every((later) => later.epoch <= epoch || later.forkedAt >= seq);
  }

  /**
   * Goes on from the log's end. Needed if the log no longer contains the changes that this gateway
   * has delivered: history changed, or the gateway slept longer than the retention.
   */
  async #startOver(): Promise<void> {
    const { hub, reader, catalog, history, log } = this.#options;
    const backoff = new Backoff(100, 2_000);
    while (!this.#abort.signal.aborted) {
      try {
        const { epoch, newest } = await reader.extent();
        this.#epochs = await reader.epochs();
        log.warn(
          { from: { epoch: hub.epoch, seq: hub.seq }, to: { epoch, seq: newest } },
          'starting over: the log does not continue where this gateway was',
        );
        // The log lacks changes that this gateway has delivered. These changes, and the fan-out's
        // batches after the log's end, are of another history.
        if (epoch === hub.epoch && newest < this.#readTo) history.distrusted = epoch;
        this.#unfinished.drop();
        // this gateway may have missed changes of shape: cursors that begin again use the catalog as it is now
        await catalog.begin();
        await this.#options.revocations?.load();
        hub.catalogChanged();
        hub.reset(epoch, newest);
        this.#options.sets?.invalidateAll();
        hub.loseHistory();
        this.#answered();
        this.#followed();
        return;
      } catch {
        await sleep(backoff.next(), this.#abort.signal);
      }
    }
  }

  /** Called after these tables, by Table.id, were altered: the changes that follow have the new shape. */
  #alter(tables: ReadonlySet<number>, why: 'shape' | 'access'): void {
    this.#options.hub.catalogChanged();
    this.#options.hub.reportAltered(tables, why);
  }

  async #loadFormer(): Promise<boolean> {
    const isNew = await this.#options.catalog.loadFormer();
    if (isNew) this.#options.hub.formerChanged();
    return isNew;
  }

  /** Removes excluded columns soon after their exclusion, even while no listener leads: no change of shape arrives. */
  async #watchExclusions(): Promise<void> {
    const { signal } = this.#abort;
    const { catalog, log } = this.#options;
    for (;;) {
      await sleep(exclusionsMs * (0.75 + Math.random() / 4), signal);
      if (signal.aborted) return;
      try {
        if (!(await this.#loadFormer())) continue;
        const altered = await this.#untilDone(() => catalog.load());
        if (altered) this.#alter(altered, 'shape');
      } catch (error) {
        log.debug({ err: error }, 'could not ask which columns are excluded');
      }
    }
  }

  /** Tries until `load` succeeds, as changes of tables that the catalog lacks would be lost. Null: stopped. */
  async #untilDone<Result>(load: () => Promise<Result>): Promise<Result | null> {
    const { log } = this.#options;
    const backoff = new Backoff(50, 1_000);
    while (!this.#abort.signal.aborted) {
      try {
        return await load();
      } catch (error) {
        log.warn({ err: error }, 'could not read the attached tables, trying again');
        await sleep(backoff.next(), this.#abort.signal);
      }
    }
    return null;
  }
}
