/**
 * Plain mode's channel for a viewer whose rights are limited. The channel sends the changes of some tables in the order
 * of the log, but only changes of rows that the viewer may read. If an update makes a row visible to the viewer, the
 * channel sends an INSERT. If an update makes a row invisible, the channel sends a DELETE.
 */
import { hash } from 'node:crypto';
import { actions, type Batch } from '#shared/log/batch.ts';
import type { Effect } from '#shared/wire.ts';
import type { Description, Member } from './channel.ts';
import { webSocketFraming } from './framing.ts';
import { JudgedChannel } from './judged-channel.ts';
import type { Frames, Ring } from './ring.ts';
import type { RowQuery } from './row-query.ts';
import { type Match, RowView } from './row-view.ts';

const nullText = Buffer.from('null');
const dataText = Buffer.from(',"data":');
const actionNames: Readonly<Record<Effect, string>> = { add: 'INSERT', change: 'UPDATE', remove: 'DELETE' };

/** A channel's key, which is equal for queries of the same rows and columns of the same tables. */
export function viewsKey(queries: readonly RowQuery[]): string {
  const digests = queries.map(({ digest }) => digest).sort();
  return `views:${hash('sha256', JSON.stringify(digests), 'base64url')}`;
}

export class ViewsChannel<M extends Member = Member> extends JudgedChannel<M> {
  readonly key: string;
  readonly #views: ReadonlyMap<number, RowView<ViewsChannel<M>>>;

  /** @param queries one for each table */
  constructor(queries: readonly RowQuery[], deps: { ring: Ring }) {
    super(deps.ring);
    this.key = viewsKey(queries);
    this.#views = new Map(queries.map((query) => [query.table.id, new RowView(query, this)]));
  }

  get name(): string {
    return this.key;
  }

  get table(): null {
    return null;
  }

  get views(): Iterable<RowView<ViewsChannel<M>>> {
    return this.#views.values();
  }

  viewOf(relation: number): RowView | undefined {
    return this.#views.get(relation);
  }

  describe(): Description {
    const queries = [...this.views].map(({ query }) => query);
    const filters = queries.map(({ table, filter }) => `${table.name}: ${filter?.text ?? 'every row'}`);
    return {
      table: queries.map(({ table }) => table.name).join(', ') || 'no table',
      filter: filters.length > 0 ? filters.join('; ') : null,
      columns: null,
    };
  }

  covers(tableName: string): boolean {
    return [...this.views].some(({ query }) => query.table.name === tableName);
  }

  protected assemble(batch: Batch, matches: readonly Match[]): Frames {
    const frames = matches.flatMap(({ change, effect }) => {
      const view = this.#views.get(change.relation)!;
      const isTruncate = change.action === actions.truncate;
      const image = isTruncate ? null : view.project(effect === 'remove' ? change.oldImage! : change.newImage!);
      const action = isTruncate ? 'TRUNCATE' : actionNames[effect];
      const truncated = image === null && !isTruncate ? ',"truncated":true' : '';
      const payload = [
        Buffer.from(`{"table":${JSON.stringify(view.query.table.name)},"action":"${action}","id":`),
        change.key.length > 0 ? change.key : nullText,
        dataText,
        image ?? nullText,
        Buffer.from(`,"pos":"e${batch.epoch}.${change.seq}"${truncated}}`),
      ];
      const size = payload.reduce((sum, part) => sum + part.length, 0);
      return [webSocketFraming.head(size, null), ...payload];
    });
    return { buffer: Buffer.concat(frames), count: matches.length };
  }
}
