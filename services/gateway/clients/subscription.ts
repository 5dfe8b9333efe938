/**
 * What a client asked for by one `subscribe` of plank.v1, or by one event stream. A subscription
 * begins as the client asked: with a snapshot, after a position, or now. It follows the log by its
 * cursor. If the cursor cannot go on, the subscription begins again.
 */
import { isDeepStrictEqual } from 'node:util';
import { DatabaseError, isUnavailable } from '#shared/postgres/postgres.ts';
import type { Log } from '#shared/process/logger.ts';
import type { GatewayMetrics } from '#shared/process/metrics.ts';
import { Backoff, sleep } from '#shared/waiting.ts';
import { formatPosition, type Position, type ProtocolErrorCode, type ResyncReason } from '#shared/wire.ts';
import { TooSlow } from '../bounds/budget.ts';
import type { Catalog } from '../catalog/catalog.ts';
import { eventIds, framed } from '../channels/framing.ts';
import { queryOf, Refused, type RowQuery, type RowRequest } from '../channels/row-query.ts';
import type { RowsChannel } from '../channels/rows-channel.ts';
import type { Cursor, CursorOwner } from '../relay/cursor.ts';
import type { Feed } from '../relay/feed.ts';
import type { Hub } from '../relay/hub.ts';
import type { Outlet } from '../relay/outlet.ts';
import type { Snapshots } from '../relay/snapshot.ts';
import { Altered } from '../relay/snapshot-transaction.ts';

export interface SubscriptionDeps {
  catalog: Catalog;
  hub: Hub;
  feed: Feed;
  snapshots: Snapshots;
  log: Log;
  metrics: GatewayMetrics;
}

/** insufficient_privilege */
const noRight = '42501';
/**
 * attempts to read rows while Postgres refuses the query for another reason than a missing right:
 * the table may have been altered, and the feed will report this soon
 */
const maxRefusals = 5;
/** attempts to read rows that fail, unless the client was too slow or Postgres has an outage */
const maxFailures = 5;
/** attempts to read rows for a client that does not take them in time */
const maxSlow = 3;

/** Whether Postgres understood the query and refused it. Postgres would refuse it again. */
function isRefusal(error: unknown): error is DatabaseError {
  return error instanceof DatabaseError && /^(0A|22|42|54)/.test(error.code ?? '');
}

function unreadable({ code }: DatabaseError): string {
  return code === noRight
    ? 'the gateway has no right to read the rows of this table'
    : `Postgres refuses to read these rows (SQLSTATE ${code})`;
}

export interface SubscriptionOwner {
  /** Called when the request can no longer be served: the subscription has sent the client an error, and ends. */
  onEnded(subscription: Subscription): void;
}

export class Subscription implements CursorOwner {
  readonly cursor: Cursor;
  /** the cursor's channel */
  channel: RowsChannel<Cursor>;
  readonly #deps: SubscriptionDeps;
  readonly #owner: SubscriptionOwner;
  /** kept to resolve it again when the table was altered, as the same request can mean something else then */
  readonly #request: RowRequest;
  /** stops the snapshot in progress; undefined: none is in progress */
  #reading: AbortController | undefined;
  /**
   * true: the subscription began without a position, or began again, and has not been live since. No
   * position describes what the client has.
   */
  #isBeginning = false;
  /** the last of `live` and `resync` sent was `live`: the client applies the connection's positions to this channel */
  wasSentLive = false;
  /** the client asked to go on after a position, and the cursor has been neither live nor interrupted since */
  #isResuming = false;

  constructor(
    outlet: Outlet,
    { query, snapshot }: { query: RowQuery; snapshot: boolean },
    owner: SubscriptionOwner,
    deps: SubscriptionDeps,
  ) {
    this.#deps = deps;
    this.#owner = owner;
    this.channel = this.#channelFor(query, outlet);
    this.cursor = deps.hub.follow(this.channel, outlet, this);
    this.cursor.keepsRows = snapshot;
    // clients that share a channel mostly wrote the same request: one copy of the request is enough
    const { request } = this.channel.query;
    this.#request = isDeepStrictEqual(request, query.request) ? request : query.request;
  }

  /** Begins after `from`. Null: begins with a snapshot if the client asked for rows, else now. */
  begin(from: Position | null): void {
    const { feed } = this.#deps;
    this.#isResuming = from !== null;
    if (!from) this.#beginAgain();
    else if (feed.isUnheardOf(from)) void this.#beginWhenJudged(from);
    else if (!feed.isOfThisHistory(from)) this.onInterrupted('epoch', null);
    else void this.cursor.catchUp(from.seq);
  }

  async #beginWhenJudged(from: Position): Promise<void> {
    const isOurs = await this.#deps.feed.judge(from);
    // the client may have left, or the subscription may have begun again after a loss of history
    if (!this.#isResuming || this.cursor.state === 'ended') return;
    if (isOurs) void this.cursor.catchUp(from.seq);
    else this.onInterrupted('epoch', null);
  }

  /**
   * Sends a `resync`. If the client keeps no rows and `after` is a seq, the subscription then goes on
   * in the log after this seq. Else it begins again.
   */
  onInterrupted(reason: ResyncReason, after: number | null): void {
    const { cursor } = this;
    if (cursor.state === 'ended') return;
    cursor.pause();
    this.#countResume('gone');
    const goesOn = after !== null && !cursor.keepsRows;
    this.#isBeginning = !goesOn;
    if (!this.#readapt()) return;
    this.#resync(reason, goesOn ? after : null);
    if (goesOn) void cursor.catchUp(after);
    else this.#beginAgain();
  }

  onAltered(): void {
    const { state, keepsRows } = this.cursor;
    if (state === 'ended') return;
    // if the client keeps no rows and is catching up, the resync comes when its cursor reaches the change of shape
    if (state === 'catching-up' && !keepsRows) this.#readapt();
    else this.onInterrupted('shape', this.#deps.hub.seq);
  }

  onLive(): void {
    const { hub } = this.#deps;
    this.wasSentLive = true;
    this.#countResume('ok');
    if (this.#isBeginning) {
      this.#isBeginning = false;
      this.#moveTo(this.channel.query);
    }
    const pos = formatPosition(hub);
    this.#write({ type: 'live', ch: this.channel.name, pos }, pos);
  }

  end(): void {
    if (this.cursor.state === 'ended') return;
    this.#reading?.abort();
    this.cursor.end();
  }

  #channelFor(query: RowQuery, { framing }: Outlet): RowsChannel<Cursor> {
    return this.#deps.hub.channels.forRows(query, (this.#isBeginning && framing.beforeLive) || framing);
  }

  #moveTo(query: RowQuery): void {
    this.channel = this.#channelFor(query, this.cursor.outlet);
    this.cursor.move(this.channel);
  }

  #countResume(result: 'ok' | 'gone'): void {
    if (this.#isResuming) this.#deps.metrics.resumes.inc({ result });
    this.#isResuming = false;
  }

  #resync(reason: ResyncReason, after: number | null): void {
    this.wasSentLive = false;
    this.#deps.metrics.resyncs.inc({ reason });
    const { name: ch, table } = this.channel;
    const message = { type: 'resync', ch, reason, key: table.keyColumns };
    if (after === null) return this.#write(message);
    const pos = formatPosition({ epoch: this.#deps.hub.epoch, seq: after });
    this.#write({ ...message, pos }, pos);
  }

  /**
   * Resolves the request against the table as it is now. False: the request can no longer be
   * served, and the subscription has ended.
   */
  #readapt(): boolean {
    try {
      const { name, query: former } = this.channel;
      const query = queryOf(this.#request, this.#deps.catalog);
      // a filter can mean something else after a column got another type
      if (query.filter?.key !== former.filter?.key)
        throw new Refused('UNAVAILABLE', 'the table was altered: subscribe again');
      // the channel keeps its name, because the client knows the channel by it
      this.#moveTo({ ...query, name });
      return true;
    } catch (error) {
      if (!(error instanceof Refused)) throw error;
      this.#refuse(error.code, error.message);
      return false;
    }
  }

  /** Sends the client an error with the reason, and ends the subscription. */
  #refuse(code: ProtocolErrorCode, message: string): void {
    const { outlet } = this.cursor;
    const retry = code === 'UNAVAILABLE';
    const text = JSON.stringify({ type: 'error', ch: this.channel.name, code, message, retry });
    outlet.write(framed(outlet.framing, text, retry ? eventIds.anew : eventIds.end));
    this.#owner.onEnded(this);
    this.end();
  }

  #beginAgain(): void {
    const { cursor } = this;
    this.#reading?.abort();
    this.#isBeginning = true;
    cursor.began = -1;
    this.#moveTo(this.channel.query);
    if (cursor.keepsRows) void this.#snapshot();
    else void cursor.catchUp(this.#deps.hub.seq);
  }

  /** Sends the rows, then lets the cursor catch up. Stops when the subscription begins again or ends. */
  async #snapshot(): Promise<void> {
    const reading = new AbortController();
    this.#reading = reading;
    await this.#readRows(reading.signal);
    // frees the memory: a client may be quiet for hours afterwards
    if (this.#reading === reading) this.#reading = undefined;
  }

  async #readRows(signal: AbortSignal): Promise<void> {
    const { snapshots, log } = this.#deps;
    const { outlet } = this.cursor;
    const isWanted = () => !signal.aborted && outlet.open;
    const backoff = new Backoff(100, 5_000);
    let hasBegun = false;
    let refusals = 0;
    let failures = 0;
    let slow = 0;
    while (isWanted()) {
      try {
        const start = await snapshots.read(outlet, this.channel, signal, async (page, more) => {
          if (!isWanted()) return false;
          hasBegun = true;
          outlet.write(this.channel.frame(`{"type":"rows","ch":"${this.channel.name}",${page},"more":${more}}`));
          await outlet.drained();
          return isWanted();
        });
        if (start && isWanted()) void this.cursor.catchUp(start.seq, start.alreadySeen());
        return;
      } catch (error) {
        if (isWanted() && isRefusal(error) && (error.code === noRight || ++refusals >= maxRefusals)) {
          log.error({ err: error, channel: this.channel.name }, 'Postgres refuses a snapshot');
          this.#refuse('UNREADABLE', unreadable(error));
          return;
        }
        const isFailure = !(error instanceof TooSlow) && !isUnavailable(error);
        if (isWanted() && isFailure && ++failures >= maxFailures) {
          log.error({ err: error, channel: this.channel.name }, 'gave up a snapshot that cannot be read');
          this.#refuse('UNAVAILABLE', 'the rows cannot be read at the moment');
          return;
        }
        if (isWanted() && error instanceof TooSlow && ++slow >= maxSlow) {
          this.#refuse('UNAVAILABLE', 'the rows were read too slowly');
          return;
        }
        if (!(error instanceof TooSlow) && !(error instanceof Altered))
          log.warn({ err: error, channel: this.channel.name }, 'could not read a snapshot, trying again');
        // the client has only some of the rows: the resync tells it to drop them
        if (hasBegun && isWanted()) this.#resync('retention', null);
        hasBegun = false;
        await sleep(backoff.next(), signal);
      }
    }
  }

  #write(message: object, position: string | null = null): void {
    this.cursor.outlet.write(this.channel.frame(JSON.stringify(message), position));
  }
}
