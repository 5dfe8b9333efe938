/**
 * Plain mode: a connection follows one set of tables, which the client chooses by the URL and by
 * messages. The gateway sends only changes on the connection. With AUTH=jwt, the gateway sends only the
 * changes of rows that the viewer may read, and closes the connection when the viewer's rights change.
 */
import { isDeepStrictEqual } from 'node:util';
import type { GatewayMetrics } from '#shared/process/metrics.ts';
import { closeCodes, type Position, parsePosition, type ResyncReason } from '#shared/wire.ts';
import type { Viewer } from '../access/viewer.ts';
import type { Catalog } from '../catalog/catalog.ts';
import type { Channel } from '../channels/channel.ts';
import { Refused, type RowQuery, withSets } from '../channels/row-query.ts';
import type { TableSet } from '../channels/tables-channel.ts';
import { ViewsChannel } from '../channels/views-channel.ts';
import type { Cursor, CursorOwner } from '../relay/cursor.ts';
import type { Feed } from '../relay/feed.ts';
import type { Hub } from '../relay/hub.ts';
import type { SetGuard } from '../relay/sets.ts';
import type { Connection } from './connection.ts';
import { parsePlainMessage, parseTables } from './messages.ts';
import type { Protocol } from './protocol.ts';
import { drop, type Hold, type Queries } from './queries.ts';

export interface PlainDeps {
  catalog: Catalog;
  queries: Queries;
  hub: Hub;
  feed: Feed;
  metrics: GatewayMetrics;
}

/** The request in a client's URL: the tables, and the position to go on after (null: from now on). */
export interface PlainRequest {
  tables: TableSet;
  since: Position | null;
}

const otherRights = 'your rights have changed, read the rows again';
const unreadable = 'a change cannot be read any more, read the rows again';
const otherHistory = 'since: this history is no more, read the rows again';

/** Reads the URL. If the request cannot be served, returns the code and reason for closing the connection. */
export function plainRequest(
  url: URL,
  { catalog, queries, feed, metrics }: PlainDeps,
  viewer: Viewer | null,
): PlainRequest | { code: number; error: string } {
  const tables = parseTables(url.searchParams.get('tables'));
  const unknown = tables?.find((name) => !exists(name, viewer, { catalog, queries }));
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

/** Whether the table exists for the viewer. A table that the viewer may not read looks as if it did not exist. */
function exists(table: string, viewer: Viewer | null, { catalog, queries }: Pick<PlainDeps, 'catalog' | 'queries'>) {
  return viewer === null ? catalog.byName(table) !== undefined : queries.ofTables([table], viewer).length > 0;
}

export class Plain implements Protocol, CursorOwner {
  readonly #connection: Connection;
  readonly #deps: PlainDeps;
  #cursor: Cursor | null = null;
  #tables: TableSet;
  readonly #hasSince: boolean;
  /** the client requested to go on after a position, and its cursor has not been live yet */
  #isResuming: boolean;
  /**
   * keeps the sets of the viewer's policies loaded; null: AUTH=off, the policies have no sets, or their sets are not
   * loaded yet
   */
  #hold: Hold | null = null;

  constructor(connection: Connection, { tables, since }: PlainRequest, deps: PlainDeps) {
    this.#connection = connection;
    this.#deps = deps;
    this.#tables = tables;
    this.#hasSince = since !== null;
    this.#isResuming = this.#hasSince;
    this.#follow(tables, (channel, guards) => {
      this.#cursor = deps.hub.follow(channel, connection.outlet, this);
      this.#cursor.guards = guards;
      this.#begin(this.#cursor, since);
    });
  }

  /**
   * Calls `use` with the channel of these tables. If sets of the viewer's policies must be loaded first, later messages
   * of the client wait meanwhile. Otherwise calls `use` at once.
   */
  #follow(tables: TableSet, use: (channel: Channel<Cursor>, guards: readonly SetGuard[]) => void): void {
    const { hub, queries } = this.#deps;
    const { viewer } = this.#connection;
    if (viewer === null) return use(hub.channels.forTables(tables), []);
    const loading = queries.load(
      () => queries.ofTables(tables, viewer),
      (hold) => {
        if (!this.#connection.outlet.open) return hold.release();
        this.#keep(hold);
        use(hub.channels.forViews(hold.queries), hold.guards);
      },
    );
    if (loading) void this.#afterLoading(loading);
  }

  async #afterLoading(loading: Promise<void>): Promise<void> {
    this.#connection.isBusy = true;
    try {
      await loading;
    } catch (error) {
      if (!(error instanceof Refused)) throw error;
      this.#connection.close(closeCodes.internal, error.message);
    } finally {
      this.#connection.isBusy = false;
    }
  }

  #keep(hold: Hold): void {
    const former = this.#hold;
    this.#hold = hold.hasSets ? hold : null;
    if (this.#hold) this.#hold.onVoid = () => this.#changeRights();
    if (former) drop(former);
  }

  #changeRights(): void {
    this.#connection.close(closeCodes.restart, otherRights);
  }

  #begin(cursor: Cursor, since: Position | null): void {
    const { feed } = this.#deps;
    if (since === null) cursor.goLive();
    else if (feed.isUnheardOf(since)) void this.#beginWhenJudged(cursor, since);
    else this.#resume(cursor, since);
  }

  async #beginWhenJudged(cursor: Cursor, since: Position): Promise<void> {
    const { feed, metrics } = this.#deps;
    const isOurs = await feed.judge(since);
    if (!this.#connection.outlet.open) return;
    if (isOurs) return this.#resume(cursor, since);
    metrics.resumes.inc({ result: 'gone' });
    this.#connection.close(closeCodes.positionGone, otherHistory);
  }

  #resume(cursor: Cursor, { seq }: Position): void {
    const { queries } = this.#deps;
    const mayDiffer = this.#connection.viewer !== null && queries.haveChanged(this.#tables, seq);
    if (mayDiffer) this.onInterrupted('access');
    else void cursor.catchUp(seq);
  }

  /** For a client whose rights changed after its position: the client may have rows that it may not read now. */
  #refuseSince(): void {
    this.#connection.close(closeCodes.positionGone, `since: ${otherRights}`);
  }

  get cursors(): readonly Cursor[] {
    return this.#cursor ? [this.#cursor] : [];
  }

  onLive(): void {
    if (this.#isResuming) this.#deps.metrics.resumes.inc({ result: 'ok' });
    this.#isResuming = false;
  }

  /** Closes the connection if the viewer's rights have changed. Else follows the tables in their new shape. */
  onAltered(why: 'shape' | 'access'): void {
    const { hub, queries } = this.#deps;
    const { viewer } = this.#connection;
    const { channel } = this.#cursor!;
    if (viewer === null || !(channel instanceof ViewsChannel)) return;
    const rules = (some: Iterable<RowQuery>) => [...some].map(({ rule }) => rule).sort();
    const former = [...channel.views].map(({ query }) => query);
    const now = queries.ofTables(this.#tables, viewer);
    if (!isDeepStrictEqual(rules(now), rules(former))) return this.#changeRights();
    const isSameTable = ({ table }: RowQuery) => channel.viewOf(table.id)?.query.table === table;
    if (now.every(isSameTable)) return;
    // a filter with loaded sets still reads the columns by their former types
    if (why === 'shape' && this.#hold) return this.#changeRights();
    const filters = new Map(former.map(({ rule, filter }) => [rule, filter]));
    const loaded = now.map((query) =>
      query.filter?.sources.length ? withSets(query, filters.get(query.rule)!) : query,
    );
    this.#cursor!.move(hub.channels.forViews(loaded));
  }

  onInterrupted(reason: ResyncReason): void {
    // plain mode does not report that rows changed without changes of their own
    if (reason === 'rows') return;
    if (reason === 'shape') return this.#connection.close(closeCodes.restart, unreadable);
    if (this.#isResuming) this.#deps.metrics.resumes.inc({ result: 'gone' });
    if (reason === 'epoch')
      return this.#connection.close(closeCodes.restart, 'the history has changed, read the rows again');
    if (reason === 'access') return this.#refuseSince();
    const code = this.#isResuming ? closeCodes.positionGone : closeCodes.tooSlow;
    this.#connection.close(code, 'the next changes are no longer kept, read the rows again');
  }

  /** Whether the client has a position: from its URL, or from a change. Plain mode sends no other positions. */
  get resumes(): boolean {
    return this.#hasSince || this.#connection.outlet.used;
  }

  receive(text: string): void {
    const message = parsePlainMessage(text);
    if ('error' in message) return this.#connection.close(closeCodes.malformed, message.error);
    const { table, action } = message;
    if (!exists(table, this.#connection.viewer, this.#deps)) {
      return this.#connection.close(closeCodes.malformed, `there is no table ${JSON.stringify(table)}`);
    }
    const former = this.#tables;
    if (action === 'subscribe' && former?.includes(table)) return;
    // a connection without `?tables=` begins with all tables; its first `subscribe` replaces them by one table
    this.#tables =
      action === 'subscribe'
        ? [...(former ?? []), table]
        : (former ?? this.#allTables()).filter((name) => name !== table);
    this.#follow(this.#tables, (channel, guards) => {
      this.#cursor?.move(channel);
      if (this.#cursor) this.#cursor.guards = guards;
    });
  }

  /** The names of all tables that exist for the client. */
  #allTables(): string[] {
    const { catalog, queries } = this.#deps;
    const { viewer } = this.#connection;
    const tables = viewer === null ? catalog.tables : queries.ofTables(null, viewer).map(({ table }) => table);
    return tables.map(({ name }) => name);
  }

  tick(): void {}

  warn(): void {}

  end(): void {
    if (this.#hold) drop(this.#hold);
    this.#cursor?.end();
  }
}
