/**
 * What one `subscribe` of plank.v1 (or one event stream) goes through: begins where it was asked to, with a snapshot or
 * behind a position, follows the log, and begins anew where that cannot go on.
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
import { type Asked, Refused, wordsOf } from '../channels/row-query.ts';
import type { ChannelWords, FilteredChannel } from '../channels/rows-channel.ts';
import { type Listeners, Subscription } from '../relay/cursor.ts';
import type { Feed } from '../relay/feed.ts';
import type { Hub } from '../relay/hub.ts';
import type { Outlet } from '../relay/outlet.ts';
import type { Snapshots } from '../relay/snapshot.ts';
import { Altered } from '../relay/snapshot-transaction.ts';

export interface SubscriberDeps {
  catalog: Catalog;
  hub: Hub;
  feed: Feed;
  snapshots: Snapshots;
  log: Log;
  metrics: GatewayMetrics;
}

/** insufficient_privilege */
const noRight = '42501';
/** Refusals of other kinds may be of a table that was altered: the feed is about to tell. */
const maxRefusals = 5;
/** of reading rows, in a row, which are neither refusals nor for want of Postgres */
const maxFailures = 5;
/** So often the rows are begun for a client that does not take them in time. */
const maxSlow = 3;

/** Postgres has understood what it was asked for, and will not answer it (it is not that it cannot at the moment). */
function isRefusal(error: unknown): error is DatabaseError {
  return error instanceof DatabaseError && /^(0A|22|42|54)/.test(error.code ?? '');
}

function unreadable({ code }: DatabaseError): string {
  return code === noRight
    ? 'the gateway has no right to read the rows of this table'
    : `Postgres refuses to read these rows (SQLSTATE ${code})`;
}

/** Whose a subscriber is. */
export interface Owner {
  /** It ended by itself: what it asked for cannot be answered any more, and its client has been told. */
  onEnded(subscriber: Subscriber): void;
}

export class Subscriber implements Listeners {
  readonly subscription: Subscription;
  readonly #deps: SubscriberDeps;
  readonly #wantsRows: boolean;
  readonly #owner: Owner;
  /** to be asked again when the table is another one: its words may mean something else then than those of others do */
  readonly #asked: Asked;
  /** of the rows that are on their way: stops them when something else begins or ends */
  #reading: AbortController | undefined;
  /** begun anew, and not live since: no position says what the client has */
  #isBeginning = false;
  /** its client takes positions of the connection for its own: it was told that it is live, and has not been told otherwise since */
  toldLive = false;
  /** asked to go on behind a position, and neither live nor begun anew since */
  #isResuming = false;

  constructor(outlet: Outlet, wish: { words: ChannelWords; snapshot: boolean }, owner: Owner, deps: SubscriberDeps) {
    this.#deps = deps;
    this.#wantsRows = wish.snapshot;
    this.#owner = owner;
    this.subscription = new Subscription(this.#channelOf(wish.words, outlet), outlet, this);
    this.subscription.keepsRows = wish.snapshot;
    // mostly all who share a channel use the same words, and one copy of them is enough
    const { asked } = this.channel.words;
    this.#asked = isDeepStrictEqual(asked, wish.words.asked) ? asked : wish.words.asked;
    deps.hub.join(this.subscription);
  }

  get channel(): FilteredChannel {
    return this.subscription.channel as FilteredChannel;
  }

  /** Begins behind a position, or with the rows, or now. */
  begin(from: Position | null): void {
    const { hub, feed } = this.#deps;
    this.#isResuming = from !== null;
    if (!from) this.#beginAnew();
    else if (feed.isUnheardOf(from)) void this.#beginJudged(from);
    else if (!feed.isOfThisHistory(from)) this.onGone('epoch', null);
    else void hub.catchUp(this.subscription, from.seq);
  }

  async #beginJudged(from: Position): Promise<void> {
    const { hub, feed } = this.#deps;
    const isOurs = await feed.judge(from);
    // the client may have left, and a lost history may have begun it anew
    if (!this.#isResuming || this.subscription.state === 'ended') return;
    if (isOurs) void hub.catchUp(this.subscription, from.seq);
    else this.onGone('epoch', null);
  }

  /** What was sent is void. Begins anew with the rows, where they were asked for; else goes on in the log. */
  onGone(reason: ResyncReason, behind: number | null): void {
    if (this.subscription.state === 'ended') return;
    const { hub } = this.#deps;
    hub.pause(this.subscription);
    this.#resumed('gone');
    const goesOn = behind !== null && !this.#wantsRows;
    this.#isBeginning = !goesOn;
    if (!this.#readapt()) return;
    this.#resync(reason, goesOn ? behind : null);
    if (goesOn) void hub.catchUp(this.subscription, behind);
    else this.#beginAnew();
  }

  onAltered(): void {
    const { state } = this.subscription;
    if (state === 'ended') return;
    // who is behind and keeps no rows hears of it where it comes in the log
    if (state === 'catching-up' && !this.#wantsRows) this.#readapt();
    else this.onGone('shape', this.#deps.hub.seq);
  }

  #resync(reason: ResyncReason, behind: number | null): void {
    this.toldLive = false;
    this.#deps.metrics.resyncs.inc({ reason });
    const { name: ch, words } = this.channel;
    const message = { type: 'resync', ch, reason, key: words.table.keyColumns };
    if (behind === null) return this.#write(message);
    const pos = formatPosition({ epoch: this.#deps.hub.epoch, seq: behind });
    this.#write({ ...message, pos }, pos);
  }

  end(): void {
    if (this.subscription.state === 'ended') return;
    this.#reading?.abort();
    this.#deps.hub.leave(this.subscription);
  }

  #channelOf(words: ChannelWords, { framing }: Outlet): FilteredChannel {
    return this.#deps.hub.filteredChannel(words, (this.#isBeginning && framing.beforeLive) || framing);
  }

  #resumed(result: 'ok' | 'gone'): void {
    if (this.#isResuming) this.#deps.metrics.resumes.inc({ result });
    this.#isResuming = false;
  }

  onLive(): void {
    const { hub } = this.#deps;
    this.toldLive = true;
    this.#resumed('ok');
    if (this.#isBeginning) {
      this.#isBeginning = false;
      hub.move(this.subscription, this.#channelOf(this.channel.words, this.subscription.outlet));
    }
    const pos = formatPosition(hub);
    this.#write({ type: 'live', ch: this.channel.name, pos }, pos);
  }

  /** Asks the same of the table as it is now. False: it cannot be asked any more, and the subscription has ended. */
  #readapt(): boolean {
    const { hub, catalog } = this.#deps;
    try {
      const { name, words: former } = this.channel;
      const words = wordsOf(this.#asked, catalog);
      // the filter may mean something else for other types
      if (words.filter?.key !== former.filter?.key)
        throw new Refused('UNAVAILABLE', 'the table was altered: subscribe again');
      // the client knows the channel by its name
      hub.move(this.subscription, this.#channelOf({ ...words, name }, this.subscription.outlet));
      return true;
    } catch (error) {
      if (!(error instanceof Refused)) throw error;
      this.#refuse(error.code, error.message);
      return false;
    }
  }

  /** Tells the client that the subscription has ended. */
  #refuse(code: ProtocolErrorCode, message: string): void {
    const { outlet } = this.subscription;
    const retry = code === 'UNAVAILABLE';
    const text = JSON.stringify({ type: 'error', ch: this.channel.name, code, message, retry });
    outlet.write(framed(outlet.framing, text, retry ? eventIds.anew : eventIds.end));
    this.#owner.onEnded(this);
    this.end();
  }

  #beginAnew(): void {
    const { hub } = this.#deps;
    this.#reading?.abort();
    this.#isBeginning = true;
    this.subscription.began = -1;
    hub.move(this.subscription, this.#channelOf(this.channel.words, this.subscription.outlet));
    if (this.#wantsRows) void this.#snapshot();
    else void hub.catchUp(this.subscription, hub.seq);
  }

  /** Until it succeeds, or something else began or ended meanwhile. */
  async #snapshot(): Promise<void> {
    const reading = new AbortController();
    this.#reading = reading;
    await this.#readRows(reading.signal);
    // a client that is quiet for hours keeps nothing of this
    if (this.#reading === reading) this.#reading = undefined;
  }

  async #readRows(signal: AbortSignal): Promise<void> {
    const { hub, snapshots, log } = this.#deps;
    const { outlet } = this.subscription;
    const mine = () => !signal.aborted && outlet.open;
    const backoff = new Backoff(100, 5_000);
    let begun = false;
    let refusals = 0;
    let failures = 0;
    let slow = 0;
    while (mine()) {
      try {
        const start = await snapshots.read(outlet, this.channel, signal, async (page, more) => {
          if (!mine()) return false;
          begun = true;
          const { name } = this.channel;
          outlet.write(this.channel.wrapped(`{"type":"rows","ch":"${name}",${page},"more":${more}}`));
          await outlet.drained();
          return mine();
        });
        if (!start || !mine()) return;
        this.subscription.skip = start.skip();
        void hub.catchUp(this.subscription, start.seq);
        return;
      } catch (error) {
        if (mine() && isRefusal(error) && (error.code === noRight || ++refusals >= maxRefusals)) {
          log.error({ err: error, channel: this.channel.name }, 'Postgres refuses a snapshot');
          this.#refuse('UNREADABLE', unreadable(error));
          return;
        }
        const isFailure = !(error instanceof TooSlow) && !isUnavailable(error);
        if (mine() && isFailure && ++failures >= maxFailures) {
          log.error({ err: error, channel: this.channel.name }, 'gave up a snapshot that cannot be read');
          this.#refuse('UNAVAILABLE', 'the rows cannot be read at the moment');
          return;
        }
        if (mine() && error instanceof TooSlow && ++slow >= maxSlow) {
          this.#refuse('UNAVAILABLE', 'the rows were read too slowly');
          return;
        }
        if (!(error instanceof TooSlow) && !(error instanceof Altered))
          log.warn({ err: error, channel: this.channel.name }, 'could not read a snapshot, trying again');
        // half of the rows are there: void
        if (begun && mine()) this.#resync('retention', null);
        begun = false;
        await sleep(backoff.next(), signal);
      }
    }
  }

  #write(message: object, position: string | null = null): void {
    this.subscription.outlet.write(this.channel.wrapped(JSON.stringify(message), position));
  }
}
