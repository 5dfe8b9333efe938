/**
 * Where the log meets the connections. The feed hands it one batch after the other; it hands each live connection its
 * channel's frames in one write, and takes the ones behind along until they are live. `seq` is the one truth of how far this
 * gateway is: it moves within one synchronous step, together with the writes, so that going live can neither miss nor repeat.
 */
import { setImmediate as yieldToIo } from 'node:timers/promises';
import { type Batch, BatchReader } from '#shared/batch.ts';
import type { Catalog } from '#shared/catalog.ts';
import type { Log } from '#shared/log.ts';
import { PositionGone } from '#shared/log-reader.ts';
import type { GatewayMetrics } from '#shared/metrics.ts';
import { Backoff, sleep } from '#shared/retry.ts';
import { closeCodes } from '#shared/wire.ts';
import { Channel, channelKey, type TableSet } from './channel.ts';
import type { Connection } from './connection.ts';
import { FrameHeads } from './frames.ts';
import type { History } from './history.ts';
import { Ring } from './ring.ts';

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
  readonly #channels = new Map<string, Channel<Connection>>();
  /** wakes connections that are ahead of this gateway */
  #advanced = Promise.withResolvers<void>();
  epoch = 0;
  seq = 0;

  constructor(options: HubOptions) {
    this.#options = options;
    this.#ring = new Ring(options.ringBytes);
    this.#heads = new FrameHeads((relation) => options.catalog.byId(relation)?.name);
  }

  /** Starts over at a position: at the start, or where what is in memory belongs to a history that is no more. */
  reset(epoch: number, seq: number): void {
    this.epoch = epoch;
    this.seq = seq;
    this.#ring.clear();
    this.#heads.forget();
  }

  /** Tables were attached, renamed or detached. */
  catalogChanged(): void {
    this.#heads.forget();
  }

  /** The channel for a set of tables, shared by all who ask for the same. To be given back by `leave`. */
  join(tables: TableSet): Channel<Connection> {
    const key = channelKey(tables);
    let channel = this.#channels.get(key);
    if (!channel) {
      channel = new Channel(tables, { catalog: this.#options.catalog, heads: this.#heads, ring: this.#ring });
      this.#channels.set(key, channel);
    }
    channel.users++;
    return channel;
  }

  leave(connection: Connection): void {
    const { channel } = connection;
    channel.remove(connection);
    if (--channel.users === 0) this.#channels.delete(channel.key);
  }

  /** Moves a connection to another set of tables, from its cursor on. */
  move(connection: Connection, tables: TableSet): void {
    const live = connection.state === 'live';
    this.leave(connection);
    connection.channel = this.join(tables);
    if (live) connection.channel.add(connection);
  }

  /** Live from now on. */
  goLive(connection: Connection): void {
    connection.state = 'live';
    connection.channel.add(connection);
  }

  /** Passes on the batch that directly follows `seq`. */
  deliver(batch: Batch): void {
    const { maxQueueBytes, metrics } = this.#options;
    const recent = this.#ring.push(batch);
    let deliveries = 0;
    for (const channel of this.#channels.values()) {
      const { members } = channel;
      if (members.length === 0) continue;
      const { buffer, count } = channel.framesOf(recent);
      if (count === 0) continue;
      deliveries += count * members.length;
      // backwards: a member that leaves is replaced by one that was served
      for (let i = members.length - 1; i >= 0; i--) {
        const member = members[i]!;
        member.write(buffer);
        if (member.queuedBytes > maxQueueBytes) this.#fallBehind(member, batch.lastSeq);
      }
    }
    this.seq = batch.lastSeq;
    this.epoch = batch.epoch;
    this.#advanced.resolve();
    this.#advanced = Promise.withResolvers();

    metrics.events.inc(batch.lastSeq - batch.firstSeq + 1);
    metrics.deliveries.inc(deliveries);
    metrics.seq.set(batch.lastSeq);
    metrics.ringBytes.set(this.#ring.bytes);
    const reader = new BatchReader(batch);
    if (reader.next()) metrics.lag.observe(Math.max(0, Date.now() - reader.atMs) / 1_000);
  }

  #fallBehind(connection: Connection, cursor: number): void {
    connection.channel.remove(connection);
    connection.state = 'catching-up';
    void this.catchUp(connection, cursor);
  }

  /**
   * Takes a connection from the seq `from` to live, at its own pace. Never rejects: what goes wrong closes the connection, with
   * the code `gone` where the log no longer holds what comes next.
   */
  async catchUp(connection: Connection, from: number, gone: number = closeCodes.tooSlow): Promise<void> {
    const { history, log, metrics } = this.#options;
    const backoff = new Backoff(50, 2_000);
    connection.state = 'catching-up';
    connection.cursor = from;
    metrics.catchingUp.inc();
    try {
      while (connection.isCatchingUp) {
        if (connection.queuedBytes > 0) {
          await connection.drained();
          continue;
        }
        if (connection.cursor === this.seq) {
          this.goLive(connection);
          break;
        }
        if (connection.cursor > this.seq) {
          // another replica was further on, or the position is made up
          await history.mustExist(connection.cursor);
          if (connection.cursor > this.seq) await this.#advanced.promise;
          continue;
        }
        const recent = this.#ring.find(connection.cursor + 1);
        if (recent) {
          const whole = recent.batch.firstSeq === connection.cursor + 1;
          this.#send(
            connection,
            recent.batch,
            whole
              ? connection.channel.framesOf(recent).buffer
              : connection.channel.framesAfter(recent.batch, connection.cursor).buffer,
          );
          // a long way through memory must not hold the others up
          await yieldToIo();
          continue;
        }
        try {
          const batches = await history.read(connection.cursor, this.epoch);
          backoff.reset();
          for (const batch of batches) {
            if (!connection.isCatchingUp) break;
            if (batch.lastSeq <= connection.cursor) continue;
            this.#send(connection, batch, connection.channel.framesAfter(batch, connection.cursor).buffer);
            await connection.drained();
          }
        } catch (error) {
          if (error instanceof PositionGone) throw error;
          log.debug({ err: error }, 'could not read history, trying again');
          await sleep(backoff.next());
        }
      }
    } catch (error) {
      if (error instanceof PositionGone) connection.close(gone, 'what came next is no longer kept, read the rows anew');
      else {
        log.error({ err: error }, 'could not catch up');
        connection.close(closeCodes.internal, 'internal error');
      }
    } finally {
      metrics.catchingUp.dec();
    }
  }

  #send(connection: Connection, batch: Batch, frames: Buffer): void {
    if (frames.length > 0) connection.write(frames);
    connection.cursor = batch.lastSeq;
  }
}
