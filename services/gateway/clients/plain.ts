/** Plain mode: one subscription to a set of tables, narrowed by the URL and by messages; nothing but changes is sent. */

import type { GatewayMetrics } from '#shared/process/metrics.ts';
import { closeCodes, type Position, parsePosition } from '#shared/wire.ts';
import type { Catalog } from '../catalog/catalog.ts';
import type { TableSet, TablesChannel } from '../channels/tables-channel.ts';
import { type Gone, type Listeners, Subscription } from '../relay/cursor.ts';
import type { Feed } from '../relay/feed.ts';
import type { Hub } from '../relay/hub.ts';
import type { Connection } from './connection.ts';
import { parsePlainMessage, parseTables } from './messages.ts';

export interface PlainDeps {
  catalog: Catalog;
  hub: Hub;
  feed: Feed;
  metrics: GatewayMetrics;
}

/** What a URL asks for: which tables, and from which position on (null: from now on). */
export interface PlainWish {
  tables: TableSet;
  since: Position | null;
}

const historyIsNoMore = 'since: this history is no more, read the rows anew';

/** What the URL asks for, or why the connection is to be closed. */
export function plainWish(
  url: URL,
  { catalog, feed, metrics }: PlainDeps,
): PlainWish | { code: number; error: string } {
  const tables = parseTables(url.searchParams.get('tables'));
  const unknown = tables?.find((name) => !catalog.byName(name));
  if (unknown !== undefined) {
    return { code: closeCodes.malformed, error: `tables: there is no table ${JSON.stringify(unknown)}` };
  }
  const text = url.searchParams.get('since');
  if (text === null) return { tables, since: null };
  const since = parsePosition(text);
  if (!since) return { code: closeCodes.malformed, error: 'since: not a position' };
  if (!feed.isUnheardOf(since) && !feed.isOfThisHistory(since)) {
    metrics.resumes.inc({ result: 'gone' });
    return { code: closeCodes.positionGone, error: historyIsNoMore };
  }
  return { tables, since };
}

export class Plain implements Listeners {
  readonly #connection: Connection;
  readonly #deps: PlainDeps;
  readonly #subscription: Subscription;
  readonly #hasSince: boolean;
  /** asked to go on behind a position, and not live since */
  #isResuming: boolean;

  constructor(connection: Connection, wish: PlainWish, deps: PlainDeps) {
    this.#connection = connection;
    this.#deps = deps;
    this.#hasSince = wish.since !== null;
    this.#isResuming = this.#hasSince;
    const { hub, feed } = deps;
    this.#subscription = new Subscription(hub.tablesChannel(wish.tables), connection.outlet, this);
    hub.join(this.#subscription);
    if (wish.since === null) hub.goLive(this.#subscription);
    else if (feed.isUnheardOf(wish.since)) void this.#beginJudged(wish.since);
    else void hub.catchUp(this.#subscription, wish.since.seq);
  }

  async #beginJudged(since: Position): Promise<void> {
    const { hub, feed, metrics } = this.#deps;
    const isOurs = await feed.judge(since);
    if (!this.#connection.outlet.open) return;
    if (isOurs) return hub.catchUp(this.#subscription, since.seq);
    metrics.resumes.inc({ result: 'gone' });
    this.#connection.close(closeCodes.positionGone, historyIsNoMore);
  }

  onLive(): void {
    if (this.#isResuming) this.#deps.metrics.resumes.inc({ result: 'ok' });
    this.#isResuming = false;
  }

  onGone(why: Gone): void {
    if (this.#isResuming) this.#deps.metrics.resumes.inc({ result: 'gone' });
    if (why === 'epoch')
      return this.#connection.close(closeCodes.restart, 'the history has changed, read the rows anew');
    const code = this.#isResuming ? closeCodes.positionGone : closeCodes.tooSlow;
    this.#connection.close(code, 'what came next is no longer kept, read the rows anew');
  }

  /** By what it asked with, or by a change: nothing else is sent in plain mode. */
  get resumes(): boolean {
    return this.#hasSince || this.#connection.outlet.used;
  }

  receive(text: string): void {
    const { catalog, hub } = this.#deps;
    const message = parsePlainMessage(text);
    if ('error' in message) return this.#connection.close(closeCodes.malformed, message.error);
    const { table, action } = message;
    if (!catalog.byName(table)) {
      return this.#connection.close(closeCodes.malformed, `there is no table ${JSON.stringify(table)}`);
    }
    const now = (this.#subscription.channel as TablesChannel).tables;
    // whoever names tables wants those; the connection began with all of them
    if (action === 'subscribe' && now?.includes(table)) return;
    const tables =
      action === 'subscribe'
        ? [...(now ?? []), table]
        : (now ?? catalog.tables.map(({ name }) => name)).filter((name) => name !== table);
    hub.move(this.#subscription, hub.tablesChannel(tables));
  }

  tick(): void {}

  drain(): void {}

  end(): void {
    this.#deps.hub.leave(this.#subscription);
  }
}
