/**
 * This gateway's cursor into the log: turns the fan-out's tail and, where that lacks something, the log in Postgres into one
 * dense sequence of batches for the hub.
 *
 *   tailing  waits for the fan-out. A quiet moment makes it ask Postgres whether there is nothing new indeed: whatever keeps
 *            changes from coming (a listener cut off from Redis, a trimmed or deleted stream) is found this way.
 *   reading  reads the log, until it has met the fan-out again, or has had nothing new for a while.
 *
 * What the log says of its history comes first. While nobody has led since the database started or was restored, nothing is passed on. Where
 * the log ends before this gateway's own position within one epoch, the fan-out's batches of that epoch are another history's.
 */
import { type Batch, packBatches, splitAtBreaks } from '#shared/log/batch.ts';
import type { Tail } from '#shared/log/fanout.ts';
import { type Epoch, type Extent, type LogReader, NotLed, PositionGone } from '#shared/log/log-reader.ts';
import type { Log } from '#shared/process/logger.ts';
import type { GatewayMetrics } from '#shared/process/metrics.ts';
import { Backoff, once, sleep, withDeadlineOr } from '#shared/waiting.ts';
import type { Position } from '#shared/wire.ts';
import type { Catalog } from '../catalog/catalog.ts';
import { breaksOf } from '../channels/change.ts';
import type { CanaryWatch } from './canary.ts';
import type { Subscription } from './cursor.ts';
import type { Freshness } from './freshness.ts';
import type { History } from './history.ts';
import type { Hub } from './hub.ts';

const quietMs = 500;
const askMs = 1_000;
/** between reads of the log while the fan-out does not answer */
const readingPauseMs = 100;
/** after the log had what the fan-out lacks, it is read on for this long: there will be more of that */
const lackingMs = 2_000;
/** a position of an epoch that this gateway has not heard of yet is judged within this time, or refused */
const judgeMs = 2_000;
/** between two looks at whether columns were excluded */
const exclusionsMs = 2_000;
/** this long without word from either side, and the gateway is not ready */
const staleMs = 4_000;

interface FeedOptions {
  tail: Tail;
  reader: LogReader;
  catalog: Catalog;
  hub: Hub;
  history: History;
  canaries: CanaryWatch;
  freshness: Freshness;
  log: Log;
  metrics: GatewayMetrics;
  /** clients that have seen what is no longer true must begin anew */
  onHistoryLost: () => void;
  /** the tables of these subscriptions are not what they were; the changes that follow have the new shape */
  onShape: (concerned: Subscription[]) => void;
}

export class Feed {
  readonly #options: FeedOptions;
  readonly #abort = new AbortController();
  #epochs: Epoch[] = [];
  #running: Promise<unknown> | undefined;
  #mode: 'tailing' | 'reading' = 'tailing';
  #heardAt = 0;
  /** when what is being passed on came, in ms since 1970 */
  #receivedAtMs = 0;
  #lackedAt = Number.NEGATIVE_INFINITY;
  /** resolves when another epoch is followed */
  #following = Promise.withResolvers<void>();

  constructor(options: FeedOptions) {
    this.#options = options;
  }

  /** Resolves when the hub stands at the newest change. Throws when Postgres does not answer. */
  readonly start = once(async () => {
    const { reader, catalog, hub, freshness } = this.#options;
    await catalog.load();
    const askedAt = performance.now();
    const { isLed, ...extent } = await reader.lastExtent();
    this.#epochs = await reader.epochs();
    hub.reset(extent.epoch, extent.newest);
    freshness.extent(extent, askedAt);
    if (!isLed) this.#mode = 'reading';
    this.#heard();
    this.#running = Promise.all([this.#run(), this.#watchExclusions()]);
  });

  readonly stop = once(async () => {
    this.#abort.abort();
    await this.#running;
  });

  /** Whether changes arrive, or would if there were any. */
  get fresh(): boolean {
    return performance.now() - this.#heardAt < staleMs;
  }

  /** Asks Postgres how far the log is, and tells what is judged by it. */
  async extent(): Promise<Extent> {
    const { reader, freshness } = this.#options;
    const askedAt = performance.now();
    // a connection to be opened may take longer than a question: meanwhile changes may come from the fan-out
    const { isLed, ...extent } = await withDeadlineOr(
      reader.lastExtent(),
      askMs,
      () => new Error('Postgres is silent'),
    );
    freshness.extent(extent, askedAt);
    this.#heard();
    if (!isLed) throw new NotLed();
    return extent;
  }

  /** Where changes come from at the moment: the fan-out, or the log itself. */
  get mode(): 'tailing' | 'reading' {
    return this.#mode;
  }

  /** Whether the position belongs to the history that this gateway serves. Its seq may be out of reach all the same. */
  isOfThisHistory(position: Position): boolean {
    const { epoch } = this.#options.hub;
    return position.epoch === epoch || this.#isShared(position);
  }

  /**
   * As isOfThisHistory, also where another replica has followed into an epoch that this one is still to hear of. Each start of the
   * database begins one, and clients come back from other replicas meanwhile.
   */
  async judge(position: Position): Promise<boolean> {
    const { hub, reader } = this.#options;
    const deadline = performance.now() + judgeMs;
    const known = await reader.epochs().catch(() => null);
    if (known && !known.some(({ epoch }) => epoch === position.epoch)) return false;
    while (hub.epoch < position.epoch && performance.now() < deadline && !this.#abort.signal.aborted)
      await Promise.race([this.#following.promise, sleep(deadline - performance.now(), this.#abort.signal)]);
    return this.isOfThisHistory(position);
  }

  /** Whether only `judge` can tell. */
  isUnheardOf({ epoch }: Position): boolean {
    return epoch > this.#options.hub.epoch;
  }

  #followed(): void {
    this.#following.resolve();
    this.#following = Promise.withResolvers();
  }

  #heard(): void {
    this.#heardAt = performance.now();
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
          this.#options.log.debug({ err: error, mode: this.#mode }, 'the feed met a failure');
          if (this.#mode === 'reading') await sleep(backoff.next(), signal);
          this.#mode = 'reading';
        }
      }
    }
  }

  async #tail(): Promise<void> {
    const { hub, tail } = this.#options;
    const batches = await tail.read(hub.seq, quietMs, this.#abort.signal);
    if (this.#abort.signal.aborted) return;
    this.#heard();
    this.#receivedAtMs = Date.now();
    if (batches.length === 0) {
      if (await this.#looksBehind()) this.#mode = 'reading';
      return;
    }
    const before = hub.seq;
    for (const batch of batches) if (!(await this.#accept(batch))) return;
    if (hub.seq === before) {
      // only leftovers of an epoch that is over: they would be answered again and again
      this.#mode = 'reading';
      await sleep(readingPauseMs, this.#abort.signal);
    }
  }

  /** False: something is missing before it. */
  async #accept(batch: Batch): Promise<boolean> {
    const { hub } = this.#options;
    if (batch.epoch < hub.epoch || batch.lastSeq <= hub.seq || this.#isDistrusted(batch.epoch)) return true;
    if (batch.epoch > hub.epoch || batch.firstSeq !== hub.seq + 1) {
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
      for await (const rows of reader.stream(hub.seq)) {
        this.#receivedAtMs = Date.now();
        for (const batch of packBatches(hub.epoch, rows)) await this.#deliver(batch);
        if (signal.aborted) return;
      }
    }
    // back to the fan-out as soon as it answers and continues where the log ended
    const batches = await tail.read(hub.seq, readingPauseMs, signal).catch(() => null);
    if (batches === null) await sleep(readingPauseMs, signal);
    else if (batches.length === 0) {
      if (performance.now() - this.#lackedAt > lackingMs && !(await this.#looksBehind())) this.#mode = 'tailing';
    } else if (this.#isDistrusted(hub.epoch) || batches[0]!.epoch > hub.epoch) {
      // of a history that is not, or not yet, the log's: it would be answered again and again
      await sleep(readingPauseMs, signal);
    } else {
      this.#mode = 'tailing';
      this.#receivedAtMs = Date.now();
      for (const batch of batches) if (!(await this.#accept(batch))) return;
    }
  }

  /** What comes before a change of shape is passed on in the old shape, what comes behind it in the new one. */
  async #deliver(batch: Batch): Promise<void> {
    const { hub, canaries, freshness, onShape } = this.#options;
    const isReshaped = (of: Batch) => breaksOf(of).some(({ why }) => why === 'shape');
    // a column that was excluded must not be told by what comes before that
    if (isReshaped(batch)) await this.#untilDone(() => this.#loadFormer());
    for (const part of splitAtBreaks(batch)) {
      const altered = isReshaped(part) ? await this.#untilDone(() => this.#options.catalog.load()) : null;
      if (this.#abort.signal.aborted) return;
      hub.deliver(part, this.#receivedAtMs);
      canaries.passed(part);
      freshness.passed(part);
      if (altered) onShape(hub.catalogChanged(altered));
    }
    this.#heard();
  }

  /** False also where Postgres does not answer: then the fan-out is all there is to go by. */
  async #looksBehind(): Promise<boolean> {
    try {
      return await this.#isBehind();
    } catch (error) {
      if (error instanceof PositionGone || error instanceof NotLed) throw error;
      this.#options.log.debug({ err: error }, 'could not ask how far the log is');
      return false;
    }
  }

  /** Asks Postgres how far the log is, and follows it into a new epoch. */
  async #isBehind(): Promise<boolean> {
    const { hub, reader } = this.#options;
    const { epoch, newest } = await this.extent();
    if (epoch !== hub.epoch) {
      this.#epochs = await reader.epochs();
      const shared = this.#isShared(hub);
      const later = this.#epochs.filter((known) => known.epoch > hub.epoch);
      if (shared) hub.fork(epoch, Math.min(...later.map(({ forkedAt }) => forkedAt)));
      if (!shared) throw new PositionGone(`seq ${hub.seq} is not part of epoch ${epoch}`);
      this.#followed();
    }
    if (newest < hub.seq) throw new PositionGone(`the log ends at ${newest}, before ${hub.seq}`);
    return newest > hub.seq;
  }

  /** A position of an epoch that the log does not know is of another database. */
  #isShared({ epoch, seq }: Position): boolean {
    const isKnown = this.#epochs.some((known) => known.epoch === epoch);
    return isKnown && this.#epochs.every((later) => later.epoch <= epoch || later.forkedAt >= seq);
  }

  /** What this gateway has passed on is no longer the history, or it slept past the retention. */
  async #startOver(): Promise<void> {
    const { hub, reader, catalog, history, log, onHistoryLost } = this.#options;
    const backoff = new Backoff(100, 2_000);
    while (!this.#abort.signal.aborted) {
      try {
        const { epoch, newest } = await reader.extent();
        this.#epochs = await reader.epochs();
        log.warn(
          { from: { epoch: hub.epoch, seq: hub.seq }, to: { epoch, seq: newest } },
          'starting over: the log does not continue where this gateway was',
        );
        // a log that lacks what this gateway has passed on is another history; what the fan-out has behind its end is of that one
        if (epoch === hub.epoch && newest < hub.seq) history.distrusted = epoch;
        // what was altered meanwhile comes by no change: whoever begins anew asks for the tables as they are now
        hub.catalogChanged(await catalog.load());
        hub.reset(epoch, newest);
        onHistoryLost();
        this.#heard();
        this.#followed();
        return;
      } catch {
        await sleep(backoff.next(), this.#abort.signal);
      }
    }
  }

  async #loadFormer(): Promise<boolean> {
    const isNew = await this.#options.catalog.loadFormer();
    if (isNew) this.#options.hub.formerChanged();
    return isNew;
  }

  /** Columns that were excluded stop being read soon after that, also while no listener leads and the change of shape does not come. */
  async #watchExclusions(): Promise<void> {
    const { signal } = this.#abort;
    const { catalog, hub, log, onShape } = this.#options;
    for (;;) {
      await sleep(exclusionsMs * (0.75 + Math.random() / 4), signal);
      if (signal.aborted) return;
      try {
        if (!(await this.#loadFormer())) continue;
        const altered = await this.#untilDone(() => catalog.load());
        if (altered) onShape(hub.catalogChanged(altered));
      } catch (error) {
        log.debug({ err: error }, 'could not ask what was excluded');
      }
    }
  }

  /** Until it succeeds: changes of a table that is not known yet would be lost. */
  async #untilDone<Result>(load: () => Promise<Result>): Promise<Result | null> {
    const { log } = this.#options;
    const backoff = new Backoff(50, 1_000);
    while (!this.#abort.signal.aborted) {
      try {
        return await load();
      } catch (error) {
        log.warn({ err: error }, 'could not read what is attached, trying again');
        await sleep(backoff.next(), this.#abort.signal);
      }
    }
    return null;
  }
}
