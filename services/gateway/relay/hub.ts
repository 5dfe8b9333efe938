/**
 * Where the log meets the clients. The feed hands the hub one batch after the other, and the hub
 * writes to each live cursor its channel's frames in one piece. `seq` is this gateway's position:
 * nothing else records it. `seq` moves in the same synchronous step as the writes, so that a cursor
 * that goes live can neither miss a change nor get a change twice.
 */
import { getDefaultHighWaterMark } from 'node:stream';
import type { Batch } from '#shared/log/batch.ts';
import type { Log } from '#shared/process/logger.ts';
import type { GatewayMetrics } from '#shared/process/metrics.ts';
import type { Catalog } from '../catalog/catalog.ts';
import { breaksOf } from '../channels/change.ts';
import type { Channel } from '../channels/channel.ts';
import type { Frames } from '../channels/ring.ts';
import { Channels } from './channels.ts';
import { Cursor, type CursorDeps, type CursorOwner } from './cursor.ts';
import { DeliveryStats } from './delivery-stats.ts';
import type { History } from './history.ts';
import type { Outlet } from './outlet.ts';
import { Present } from './present.ts';

/** of sockets, in bytes */
const highWaterMark = getDefaultHighWaterMark(false);

interface HubOptions {
  catalog: Catalog;
  history: History;
  maxQueueBytes: number;
  ringBytes: number;
  log: Log;
  metrics: GatewayMetrics;
}

export class Hub {
  readonly channels: Channels;
  readonly stats: DeliveryStats;
  readonly #present: Present;
  readonly #metrics: GatewayMetrics;
  readonly #maxQueueBytes: number;
  /**
   * True: the bound is below the socket's high-water mark, so the result of `write` does not show
   * whether the bound is crossed, and the queue must be measured after each write.
   */
  readonly #mustMeasure: boolean;
  readonly #cursorDeps: CursorDeps;

  constructor({ catalog, history, maxQueueBytes, ringBytes, log, metrics }: HubOptions) {
    this.#present = new Present({ catalog, history, ringBytes });
    this.channels = new Channels(catalog, this.#present.ring);
    this.stats = new DeliveryStats(metrics);
    this.#metrics = metrics;
    this.#maxQueueBytes = maxQueueBytes;
    this.#mustMeasure = maxQueueBytes < highWaterMark;
    this.#cursorDeps = { present: this.#present, forget: this.channels.forget, log, metrics };
  }

  get epoch(): number {
    return this.#present.epoch;
  }

  get seq(): number {
    return this.#present.seq;
  }

  /** memory of the pages of history that slow clients have not taken yet */
  get heldBytes(): number {
    return this.#present.heldPages.bytes;
  }

  /** Makes a cursor on a channel of this hub. The cursor sends nothing until its `catchUp` or `goLive`. */
  follow(channel: Channel<Cursor>, outlet: Outlet, owner: CursorOwner): Cursor {
    return new Cursor(channel, outlet, owner, this.#cursorDeps);
  }

  /** Sets the position at the start, or after a change of history, and drops the batches in memory. */
  reset(epoch: number, seq: number): void {
    this.#present.epoch = epoch;
    this.#present.seq = seq;
    this.#present.ring.clear();
    this.channels.forgetNames();
  }

  /** Called after tables were attached, renamed, altered or detached. */
  catalogChanged(): void {
    this.channels.forgetNames();
    this.formerChanged();
  }

  /** Reports to the owners of cursors that these tables, by Table.id, were altered, or that their policies changed. */
  reportAltered(tables: ReadonlySet<number>, why: 'shape' | 'access'): void {
    for (const { owner } of this.channels.cursorsOf(tables)) owner.onAltered?.(why);
  }

  /** Called after columns were excluded. Removes them from the batches in memory. */
  formerChanged(): void {
    this.#present.excludeColumns();
  }

  /** The batch without columns that were excluded after its capture. For batches that do not come from memory. */
  readable(batch: Batch): Batch {
    return this.#present.readable(batch);
  }

  /** The batch that holds the seq, as a list; undefined: the batch is not in memory. */
  recent(seq: number): Batch[] | undefined {
    const found = this.#present.ring.find(seq);
    return found && [found.batch];
  }

  /** Called when delivered changes are no longer part of history. The owner of each cursor begins again in its way. */
  loseHistory(): void {
    for (const { owner } of this.channels.cursors()) owner.onInterrupted('epoch', null);
  }

  /**
   * Called when another epoch begins after the seq `at`. This gateway has delivered nothing after
   * `at`. A client that came from a replica which was ahead may have seen changes after `at`, which
   * are no longer part of history: its cursor is interrupted.
   */
  fork(epoch: number, at: number): void {
    this.#present.epoch = epoch;
    for (const { state, seq, owner } of this.channels.cursors())
      if (state === 'catching-up' && seq > at) owner.onInterrupted('epoch', null);
  }

  /** Delivers the batch that directly follows `seq`. `receivedAtMs`: when it arrived here, in ms since 1970. */
  deliver(received: Batch, receivedAtMs = Date.now()): void {
    const present = this.#present;
    const batch = present.readable(received);
    const recent = present.ring.push(batch);
    const full = new Set<Outlet>();
    const undecodable: Cursor[] = [];
    let deliveries = 0;
    const now = performance.now();
    for (const channel of this.channels.ofTables) {
      if (channel.live.length > 0) deliveries += this.#broadcast(channel, channel.framesOf(recent), now, full);
    }
    for (const channel of this.channels.match(batch)) {
      const frames = channel.keep(recent, channel.takePending(batch));
      deliveries += this.#broadcast(channel, frames, now, full);
      if (frames.undecodable) undecodable.push(...channel.live);
    }
    present.seq = batch.lastSeq;
    present.epoch = batch.epoch;
    for (const { owner } of undecodable) owner.onInterrupted('shape', present.seq);
    for (const { relation, why } of breaksOf(batch)) if (why === 'rows') this.#voidRows(relation);
    for (const outlet of full) outlet.fallBehind();
    present.wakeWaiting();
    this.#metrics.ringBytes.set(present.ring.bytes);
    this.stats.record(batch, receivedAtMs, deliveries);
  }

  /**
   * The rows of a table changed without INSERT, UPDATE or DELETE. Interrupts only the live
   * cursors: cursors that are catching up find this in the log.
   */
  #voidRows(relation: number): void {
    for (const { owner } of this.channels.liveCursorsOf(relation)) owner.onInterrupted('rows', this.seq);
  }

  /** Returns the number of changes times the number of cursors they were written to. */
  #broadcast(channel: Channel<Cursor>, { buffer, count }: Frames, now: number, full: Set<Outlet>): number {
    if (count === 0) return 0;
    channel.sentAt = now;
    const { live } = channel;
    const maxQueueBytes = this.#maxQueueBytes;
    const mustMeasure = this.#mustMeasure;
    for (let i = 0; i < live.length; i++) {
      const { outlet } = live[i]!;
      if ((!outlet.write(buffer) || mustMeasure) && outlet.queuedBytes > maxQueueBytes) full.add(outlet);
    }
    return count * live.length;
  }
}
