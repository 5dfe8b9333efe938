/**
 * Serves one `subscribe` of plank.v1, or one event stream. The client chooses how a subscription begins:
 * with a snapshot, after a position, or now. The subscription follows the log by its cursor. If the cursor
 * cannot go on, the subscription begins again.
 */
import { isDeepStrictEqual } from 'node:util';
import { DatabaseError, isUnavailable } from '#shared/postgres/postgres.ts';
import type { Log } from '#shared/process/logger.ts';
import type { GatewayMetrics } from '#shared/process/metrics.ts';
import { Backoff, sleep } from '#shared/waiting.ts';
import { formatPosition, type Position, type ProtocolErrorCode, type ResyncReason } from '#shared/wire.ts';
import type { Viewer } from '../access/viewer.ts';
import { TooSlow } from '../bounds/budget.ts';
import { eventIds, framed } from '../channels/framing.ts';
import { nameOf, Refused, type RowQuery, type RowRequest, withSets } from '../channels/row-query.ts';
import type { RowsChannel } from '../channels/rows-channel.ts';
import type { Cursor, CursorOwner } from '../relay/cursor.ts';
import type { Feed } from '../relay/feed.ts';
import type { Hub } from '../relay/hub.ts';
import type { Outlet } from '../relay/outlet.ts';
import type { Snapshots } from '../relay/snapshot.ts';
import { Altered } from '../relay/snapshot-transaction.ts';
import { drop, type Hold, type Queries } from './queries.ts';

export interface SubscriptionDeps {
  queries: Queries;
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
  /** the viewer whose rights apply; null: AUTH=off, or an operator */
  readonly viewer: Viewer | null;
  /** Called when the request cannot be served any more. The subscription has sent the client an error, and ends. */
  onEnded(subscription: Subscription): void;
}

export class Subscription implements CursorOwner {
  readonly cursor: Cursor;
  /** the cursor's channel */
  channel: RowsChannel<Cursor>;
  readonly #deps: SubscriptionDeps;
  readonly #owner: SubscriptionOwner;
  /** resolved again when the table or the rights change, because the request can mean something else then */
  readonly #request: RowRequest;
  /** the hold on the sets of the filter; null: the filter has no sets */
  #hold: Hold | null = null;
  /** the last attempt to resolve the request again, while it waits for sets; null: no attempt waits */
  #resolving: { use: () => void } | null = null;
  /** stops the snapshot in progress; undefined: none is in progress */
  #reading: AbortController | undefined;
  /**
   * true: the subscription began without a position, or began again, and has not been live since. Until then,
   * the client does not have all changes up to any position.
   */
  #isBeginning = false;
  /** true: after the last `resync`, `live` was sent. The client applies the connection's positions to this channel. */
  wasSentLive = false;
  /** the client requested to go on after a position, and the cursor has been neither live nor interrupted since */
  #isResuming = false;

  constructor(
    outlet: Outlet,
    { hold, name, snapshot }: { hold: Hold; name?: string; snapshot: boolean },
    owner: SubscriptionOwner,
    deps: SubscriptionDeps,
  ) {
    this.#deps = deps;
    this.#owner = owner;
    const [query] = hold.queries as [RowQuery];
    this.channel = this.#channelFor(name === undefined ? query : { ...query, name }, outlet);
    this.cursor = deps.hub.follow(this.channel, outlet, this);
    this.cursor.keepsRows = snapshot;
    this.#keep(hold);
    // most clients of a channel wrote the same request, and can share one copy of the request in memory
    const { request } = this.channel.query;
    this.#request = isDeepStrictEqual(request, query.request) ? request : query.request;
  }

  /**
   * Begins after `from`. If `from` is null, begins with a snapshot if the client requested rows, else now. `ch`: the
   * name of the channel whose changes the client has up to `from`; null: the client did not send a name.
   */
  begin(from: Position | null, ch: string | null): void {
    const { feed } = this.#deps;
    this.#isResuming = from !== null;
    if (!from) this.#beginAgain();
    else if (feed.isUnheardOf(from)) void this.#beginWhenJudged(from, ch);
    else if (!feed.isOfThisHistory(from)) this.onInterrupted('epoch', null);
    else this.#resume(from, ch);
  }

  async #beginWhenJudged(from: Position, ch: string | null): Promise<void> {
    const isOurs = await this.#deps.feed.judge(from);
    // the client may have left, or the subscription may have begun again after a loss of history
    if (!this.#isResuming || this.cursor.state === 'ended') return;
    if (isOurs) this.#resume(from, ch);
    else this.onInterrupted('epoch', null);
  }

  /**
   * Goes on after the position if the client's rights are the same as then. Otherwise begins again: the client keeps
   * the rows that it got under its former rights, and may not be allowed to read them now.
   */
  #resume({ seq }: Position, ch: string | null): void {
    const { name, table } = this.channel;
    const { viewer } = this.#owner;
    const isOther = ch !== null && ch !== name;
    const mayDiffer = viewer !== null && this.#deps.queries.haveChanged([table.name], seq);
    if (isOther || mayDiffer) this.onInterrupted('access', this.#deps.hub.seq);
    else void this.cursor.catchUp(seq);
  }

  /**
   * Sends a `resync`. Then the subscription goes on in the log after the seq `after`, if `after` is not
   * null, the client keeps no rows, and the filter has no sets. Otherwise the subscription begins again.
   */
  onInterrupted(reason: ResyncReason, after: number | null): void {
    const { cursor } = this;
    if (cursor.state === 'ended') return;
    this.#stop();
    this.#countResume('gone');
    const mayGoOn = after !== null && !cursor.keepsRows;
    this.#isBeginning = !mayGoOn;
    this.#readapt(() => {
      // the sets have their present values, so the filter cannot judge the changes since `after`
      const goesOn = mayGoOn && this.#hold === null;
      this.#isBeginning = !goesOn;
      this.#moveTo(this.channel.query);
      this.#resync(reason, goesOn ? after : null);
      if (goesOn) void cursor.catchUp(after);
      else this.#beginAgain();
    });
  }

  onAltered(why: 'shape' | 'access'): void {
    if (why === 'access') return this.onAccess();
    const { state, keepsRows } = this.cursor;
    if (state === 'ended') return;
    // For a client that keeps no rows and is catching up, the resync comes later: when its cursor reaches the change of
    // shape in the log.
    if (state === 'catching-up' && !keepsRows && !this.#hold && !this.#resolving) this.#readapt(() => {});
    else this.onInterrupted('shape', this.#deps.hub.seq);
  }

  /**
   * Called when the policies of the table have changed, or the claims of the client's token have. If the rights are the
   * same as before, the subscription goes on. Otherwise it sends `resync`, and begins again or, if the client keeps no
   * rows, may go on after this gateway's position. If sets are being loaded, they are resolved again.
   */
  onAccess(): void {
    if (this.cursor.state === 'ended') return;
    const { query: former, name } = this.channel;
    const query = this.#resolve();
    if (!query) return;
    if (this.#resolving) this.#readapt(this.#resolving.use);
    else if (query.rule !== former.rule) this.onInterrupted('access', this.#deps.hub.seq);
    else this.#moveTo({ ...(this.#hold ? withSets(query, former.filter!) : query), name });
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

  /** Sends this gateway's position, with the channel's name in the event's id. Only for a cursor that is live. */
  sendPosition(): void {
    const pos = formatPosition(this.#deps.hub);
    this.#write({ type: 'pos', pos }, pos);
  }

  end(): void {
    if (this.cursor.state === 'ended') return;
    this.#reading?.abort();
    this.#resolving = null;
    if (this.#hold) drop(this.#hold);
    this.cursor.end();
  }

  /** Stops the snapshot and the cursor, so that nothing is sent to the client. */
  #stop(): void {
    this.#reading?.abort();
    this.cursor.pause();
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
    const { name: ch, table, query } = this.channel;
    const resumed = nameOf(query.digest);
    const message = {
      type: 'resync',
      ch,
      reason,
      key: table.keyColumns,
      ...(resumed === ch ? {} : { resume_ch: resumed }),
    };
    if (after === null) return this.#write(message);
    const pos = formatPosition({ epoch: this.#deps.hub.epoch, seq: after });
    this.#write({ ...message, pos }, pos);
  }

  /** Resolves the request again. Null: the request cannot be served any more, and the subscription has ended. */
  #resolve(): RowQuery | null {
    try {
      return this.#resolved();
    } catch (error) {
      this.#refuseBy(error);
      return null;
    }
  }

  /** Throws Refused. */
  #resolved(): RowQuery {
    const query = this.#deps.queries.of(this.#request, this.#owner.viewer);
    // a filter can mean something else after a column got another type
    if (query.whereKey !== this.channel.query.whereKey)
      throw new Refused('UNAVAILABLE', 'the table was altered: subscribe again');
    return query;
  }

  /**
   * Resolves the request against the present table and rights, moves the subscription to the result, and calls `use`.
   * If sets must be loaded first, this happens later, and only for the last call of `#readapt`. Ends the subscription
   * if the request cannot be served any more.
   */
  #readapt(use: () => void): void {
    const attempt = { use };
    this.#resolving = attempt;
    try {
      const loading = this.#deps.queries.load(
        () => [this.#resolved()],
        (hold) => {
          if (this.#resolving !== attempt) return hold.release();
          this.#resolving = null;
          this.#take(hold);
          use();
        },
      );
      loading?.catch((error: unknown) => {
        if (this.#resolving === attempt || !(error instanceof Refused)) this.#refuseBy(error);
      });
    } catch (error) {
      this.#refuseBy(error);
    }
  }

  #take(hold: Hold): void {
    const former = this.#hold;
    this.#keep(hold);
    // released last, so that sets that are in both holds stay loaded
    if (former) drop(former);
    // the channel keeps its name, because the client knows the channel by it
    this.#moveTo({ ...(hold.queries[0] as RowQuery), name: this.channel.name });
  }

  #keep(hold: Hold): void {
    this.#hold = hold.hasSets ? hold : null;
    this.cursor.guards = hold.guards;
    // when a set becomes invalid, nothing more may be sent under its former values
    if (this.#hold) this.#hold.onVoid = () => this.onInterrupted('access', null);
  }

  /** Ends the subscription because of a Refused. Throws any other error. */
  #refuseBy(error: unknown): void {
    if (!(error instanceof Refused)) throw error;
    this.#refuse(error.code, error.message);
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
        // the client has only some of the rows. After the resync, the client drops these rows.
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
