/**
 * Where the log meets the subscriptions. The feed hands it one batch after the other; it hands each live subscription its
 * channel's frames in one write, and takes the ones behind along until they are live. `seq` is the one truth of how far this
 * gateway is: it moves within one synchronous step, together with the writes, so that going live can neither miss nor repeat.
 */
import { getDefaultHighWaterMark } from 'node:stream';
import { type Batch, BatchReader, canariesOf, drainedAtOf, isBreak } from '#shared/log/batch.ts';
import type { Log } from '#shared/process/logger.ts';
import type { GatewayMetrics } from '#shared/process/metrics.ts';
import type { Catalog } from '../catalog/catalog.ts';
import { breaksOf, Change } from '../channels/change.ts';
import type { Framing } from '../channels/framing.ts';
import { type Frames, Ring } from '../channels/ring.ts';
import { type ChannelWords, channelKey, FilteredChannel } from '../channels/rows-channel.ts';
import { FrameHeads } from '../channels/table-frames.ts';
import { TableIndex } from '../channels/table-index.ts';
import { type Channel, type TableSet, TablesChannel, tablesKey } from '../channels/tables-channel.ts';
import { CatchUp } from './catch-up.ts';
import type { Subscription } from './cursor.ts';
import { readable } from './former-images.ts';
import type { History } from './history.ts';
import { LagWindow } from './lag-window.ts';
import type { Outlet } from './outlet.ts';

/** of sockets */
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
  readonly #options: HubOptions;
  readonly #ring: Ring;
  readonly #heads: FrameHeads;
  readonly #tablesChannels = new Map<string, TablesChannel>();
  readonly #filteredChannels = new Map<string, FilteredChannel>();
  /** by Table.id; only tables that a filtered channel is about */
  readonly #indexes = new Map<number, TableIndex>();
  readonly #catchUp: CatchUp;
  epoch = 0;
  seq = 0;
  /** since the start: changes passed on, and how many times one was written to a live subscription */
  passed = 0;
  delivered = 0;
  /** from the capture of changes until they were written */
  readonly lag = new LagWindow();

  constructor(options: HubOptions) {
    this.#options = options;
    this.#ring = new Ring(options.ringBytes);
    this.#catchUp = new CatchUp({ ...options, ring: this.#ring, present: this });
    this.#heads = new FrameHeads((relation) => options.catalog.byId(relation)?.name);
  }

  /** Starts over at a position: at the start, or where what is in memory belongs to a history that is no more. */
  reset(epoch: number, seq: number): void {
    this.epoch = epoch;
    this.seq = seq;
    this.#ring.clear();
    this.#heads.forget();
  }

  /** Tables were attached, renamed, altered or detached. Returns the subscriptions of channels about those. */
  catalogChanged(changed: ReadonlySet<number>): Subscription[] {
    this.#heads.forget();
    this.formerChanged();
    const concerned: Subscription[] = [];
    for (const channel of this.#filteredChannels.values()) {
      if (changed.has(channel.words.table.id)) concerned.push(...channel.users);
    }
    return concerned;
  }

  /** Columns were excluded: what is in memory may have them. */
  formerChanged(): void {
    this.#ring.replace((batch) => this.readable(batch));
  }

  /** A batch as it may be read: whatever comes from elsewhere than memory goes through this. */
  readable(batch: Batch): Batch {
    return readable(batch, this.#options.catalog.former);
  }

  /** What was passed on is not the history any more: each subscription begins anew, in its own way. */
  loseHistory(): void {
    for (const { listeners } of this.#everyone()) listeners.onGone('epoch', null);
  }

  /**
   * Another epoch begins behind the seq `at`, which this gateway has not passed yet. Whoever came from a replica that was
   * further on has seen what is no longer true.
   */
  fork(epoch: number, at: number): void {
    this.epoch = epoch;
    for (const { state, cursor, listeners } of this.#everyone())
      if (state === 'catching-up' && cursor > at) listeners.onGone('epoch', null);
  }

  /** A list of its own: subscriptions that begin anew may move to other channels. */
  #everyone(): Subscription[] {
    const channels = [...this.#tablesChannels.values(), ...this.#filteredChannels.values()];
    return channels.flatMap(({ users }) => [...users]);
  }

  *channels(): Iterable<Channel> {
    yield* this.#tablesChannels.values();
    yield* this.#filteredChannels.values();
  }

  /** The batch that holds the seq, as a list; undefined where it is not in memory. */
  recent(seq: number): Batch[] | undefined {
    const found = this.#ring.find(seq);
    return found && [found.batch];
  }

  /** Plain mode's channel for a set of tables, shared by all who ask for the same. */
  tablesChannel(tables: TableSet): TablesChannel {
    const key = tablesKey(tables);
    let channel = this.#tablesChannels.get(key);
    if (!channel) {
      channel = new TablesChannel(tables, { catalog: this.#options.catalog, heads: this.#heads, ring: this.#ring });
      this.#tablesChannels.set(key, channel);
    }
    return channel;
  }

  /** The channel for these rows in this shape, shared by all who ask for the same. */
  filteredChannel(words: ChannelWords, framing: Framing): FilteredChannel {
    const key = channelKey(words, framing);
    let channel = this.#filteredChannels.get(key);
    // a table that was altered since is another one; its former subscriptions are paused
    if (channel?.words.table !== words.table) {
      let index = this.#indexes.get(words.table.id);
      if (index?.table !== words.table) {
        index = new TableIndex(words.table);
        this.#indexes.set(words.table.id, index);
      }
      channel = new FilteredChannel(words, { ring: this.#ring, framing });
      this.#filteredChannels.set(key, channel);
      index.add(channel);
    }
    return channel;
  }

  /** To be called once for each subscription made with a channel of this hub, and again when it moves to another channel. */
  join(subscription: Subscription): void {
    subscription.channel.users.add(subscription);
  }

  /** Ends a subscription. */
  leave(subscription: Subscription): void {
    subscription.state = 'ended';
    subscription.run++;
    this.#catchUp.wake(subscription);
    subscription.outlet.remove(subscription);
    this.#part(subscription);
  }

  /** Moves a subscription to another channel, from its cursor on. */
  move(subscription: Subscription, channel: Channel): void {
    // to part would forget a channel that nobody else uses
    if (channel === subscription.channel) return;
    this.#part(subscription);
    subscription.channel = channel;
    this.join(subscription);
    if (subscription.state === 'live') channel.enter(subscription);
  }

  #part(subscription: Subscription): void {
    const { channel } = subscription;
    channel.leave(subscription);
    channel.users.delete(subscription);
    if (channel.users.size > 0) return;
    if (channel instanceof FilteredChannel) {
      if (this.#filteredChannels.get(channel.key) === channel) this.#filteredChannels.delete(channel.key);
      const index = this.#indexes.get(channel.words.table.id);
      index?.remove(channel);
      if (index?.size === 0) this.#indexes.delete(channel.words.table.id);
    } else if (this.#tablesChannels.get(channel.key) === channel) this.#tablesChannels.delete(channel.key);
  }

  /** Live from now on. */
  goLive(subscription: Subscription): void {
    subscription.state = 'live';
    subscription.skip = null;
    if (subscription.began < 0) subscription.began = this.seq;
    subscription.channel.enter(subscription);
    subscription.listeners.onLive?.();
  }

  /** No longer live: nothing is sent until `catchUp`. */
  pause(subscription: Subscription): void {
    subscription.channel.leave(subscription);
    subscription.state = 'catching-up';
    subscription.run++;
    this.#catchUp.wake(subscription);
  }

  /** Passes on the batch that directly follows `seq`, which this process received at that time (ms since 1970). */
  deliver(received: Batch, receivedAtMs = Date.now()): void {
    const { metrics } = this.#options;
    const batch = this.readable(received);
    const recent = this.#ring.push(batch);
    const full = new Set<Outlet>();
    const torn: Subscription[] = [];
    let deliveries = 0;
    const now = performance.now();
    for (const channel of this.#tablesChannels.values()) {
      if (channel.live.length > 0) deliveries += this.#broadcast(channel, channel.framesOf(recent), now, full);
    }
    if (this.#indexes.size > 0) {
      for (const channel of this.#matches(batch)) {
        const frames = channel.keep(recent, channel.take(batch));
        deliveries += this.#broadcast(channel, frames, now, full);
        if (frames.torn) torn.push(...channel.live);
      }
    }
    this.seq = batch.lastSeq;
    this.epoch = batch.epoch;
    for (const { listeners } of torn) listeners.onGone('shape', this.seq);
    for (const { relation, why } of breaksOf(batch)) if (why === 'rows') this.#voidRows(relation);
    for (const outlet of full) this.#fallBehind(outlet);
    this.#catchUp.wakeAll();
    this.#observe(batch, receivedAtMs);
    metrics.deliveries.inc(deliveries);
    this.delivered += deliveries;
  }

  /** The rows of a table changed without changes of their own. Whoever is behind comes to that in the log. */
  #voidRows(relation: number): void {
    const live = [...(this.#indexes.get(relation)?.channels ?? [])].flatMap((channel) => channel.live);
    for (const { listeners } of live) listeners.onGone('rows', this.seq);
  }

  /** Returns how many changes were written. */
  #broadcast(channel: Channel, { buffer, count }: Frames, now: number, full: Set<Outlet>): number {
    if (count === 0) return 0;
    channel.toldAt = now;
    const { live } = channel;
    const { maxQueueBytes } = this.#options;
    const mayBeFull = maxQueueBytes < highWaterMark;
    for (let i = 0; i < live.length; i++) {
      const { outlet } = live[i]!;
      if ((!outlet.write(buffer) || mayBeFull) && outlet.queuedBytes > maxQueueBytes) full.add(outlet);
    }
    return count * live.length;
  }

  /** The filtered channels that something in the batch concerns, with their matches pending. */
  #matches(batch: Batch): Set<FilteredChannel> {
    const touched = new Set<FilteredChannel>();
    const reader = new BatchReader(batch);
    while (reader.next()) {
      const index = this.#indexes.get(reader.relation);
      if (index && !isBreak(reader.action)) index.match(new Change(reader), touched);
    }
    return touched;
  }

  #observe(batch: Batch, receivedAtMs: number): void {
    const { metrics } = this.#options;
    const changes = batch.lastSeq - batch.firstSeq + 1 - canariesOf(batch).length;
    metrics.seq.set(batch.lastSeq);
    metrics.ringBytes.set(this.#ring.bytes);
    if (changes === 0) return;
    this.passed += changes;
    metrics.events.inc(changes);
    const reader = new BatchReader(batch);
    reader.next();
    const now = Date.now();
    const drainedAtMs = drainedAtOf(batch);
    const observe = (stage: string, fromMs: number, toMs: number) =>
      metrics.lag.observe({ stage }, Math.max(0, toMs - fromMs) / 1_000);
    if (drainedAtMs > 0) {
      observe('capture', reader.atMs, drainedAtMs);
      observe('publish', drainedAtMs, receivedAtMs);
    }
    observe('fanout', receivedAtMs, now);
    observe('total', reader.atMs, now);
    this.lag.record(Math.max(0, now - reader.atMs), performance.now());
  }

  /** Whoever has this many bytes unsent reads on at its own pace: all its live subscriptions, from here. */
  #fallBehind(outlet: Outlet): void {
    for (const subscription of outlet.subscriptions) {
      if (subscription.state !== 'live') continue;
      this.pause(subscription);
      void this.catchUp(subscription, this.seq);
    }
  }

  /**
   * Takes a subscription from behind the seq `from` to live, at its own pace. Resolves when it is live, gone, or overtaken by
   * another run; never rejects.
   */
  catchUp(subscription: Subscription, from: number): Promise<void> {
    return this.#catchUp.run(subscription, from);
  }
}
