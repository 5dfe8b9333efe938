/**
 * Plain mode: a connection follows one set of tables, which the client chooses by the URL and by
 * messages. The gateway sends it only changes.
 */
import type { GatewayMetrics } from '#shared/process/metrics.ts';
import { closeCodes, type Position, parsePosition, type ResyncReason } from '#shared/wire.ts';
import type { Catalog } from '../catalog/catalog.ts';
import type { TableSet } from '../channels/tables-channel.ts';
import type { Cursor, CursorOwner } from '../relay/cursor.ts';
import type { Feed } from '../relay/feed.ts';
import type { Hub } from '../relay/hub.ts';
import type { Connection } from './connection.ts';
import { parsePlainMessage, parseTables } from './messages.ts';
import type { Protocol } from './protocol.ts';

export interface PlainDeps {
  catalog: Catalog;
  hub: Hub;
  feed: Feed;
  metrics: GatewayMetrics;
}

/** What a client asks for by its URL: the tables, and the position to go on after (null: from now on). */
export interface PlainRequest {
  tables: TableSet;
  since: Position | null;
}

const otherHistory = 'since: this history is no more, read the rows again';

/** Reads the URL. If the request cannot be served, returns the code and reason for closing the connection. */
export function plainRequest(
  url: URL,
  { catalog, feed, metrics }: PlainDeps,
): PlainRequest | { code: number; error: string } {
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
    return { code: closeCodes.positionGone, error: otherHistory };
  }
  return { tables, since };
}

export class Plain implements Protocol, CursorOwner {
  readonly #connection: Connection;
  readonly #deps: PlainDeps;
  readonly #cursor: Cursor;
  #tables: TableSet;
  readonly #hasSince: boolean;
  /** the client asked to go on after a position, and its cursor has not been live yet */
  #isResuming: boolean;

  constructor(connection: Connection, { tables, since }: PlainRequest, deps: PlainDeps) {
    this.#connection = connection;
    this.#deps = deps;
    this.#tables = tables;
    this.#hasSince = since !== null;
    this.#isResuming = this.#hasSince;
    const { hub, feed } = deps;
    this.#cursor = hub.follow(hub.channels.forTables(tables), connection.outlet, this);
    if (since === null) this.#cursor.goLive();
    else if (feed.isUnheardOf(since)) void this.#beginWhenJudged(since);
    else void this.#cursor.catchUp(since.seq);
  }

  async #beginWhenJudged(since: Position): Promise<void> {
    const { feed, metrics } = this.#deps;
    const isOurs = await feed.judge(since);
    if (!this.#connection.outlet.open) return;
    if (isOurs) return this.#cursor.catchUp(since.seq);
    metrics.resumes.inc({ result: 'gone' });
    this.#connection.close(closeCodes.positionGone, otherHistory);
  }

  get cursors(): readonly Cursor[] {
    return [this.#cursor];
  }

  onLive(): void {
    if (this.#isResuming) this.#deps.metrics.resumes.inc({ result: 'ok' });
    this.#isResuming = false;
  }

  onInterrupted(reason: ResyncReason): void {
    if (this.#isResuming) this.#deps.metrics.resumes.inc({ result: 'gone' });
    if (reason === 'epoch')
      return this.#connection.close(closeCodes.restart, 'the history has changed, read the rows again');
    const code = this.#isResuming ? closeCodes.positionGone : closeCodes.tooSlow;
    this.#connection.close(code, 'the next changes are no longer kept, read the rows again');
  }

  /** Whether the client has a position: from its URL, or from a change. Plain mode sends no other positions. */
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
    const former = this.#tables;
    if (action === 'subscribe' && former?.includes(table)) return;
    // a connection without `?tables=` begins with all tables; its first `subscribe` replaces them by one table
    this.#tables =
      action === 'subscribe'
        ? [...(former ?? []), table]
        : (former ?? catalog.tables.map(({ name }) => name)).filter((name) => name !== table);
    this.#cursor.move(hub.channels.forTables(this.#tables));
  }

  tick(): void {}

  warn(): void {}

  end(): void {
    this.#cursor.end();
  }
}
