/**
 * A channel of plank.v1 and of event streams: the rows of one table that a filter admits, with all
 * or some of the columns. If a row leaves the channel, only its key is sent.
 */
import { actions, type Batch, BatchReader } from '#shared/log/batch.ts';
import type { RowAction } from '#shared/wire.ts';
import type { Table } from '../catalog/catalog.ts';
import type { Description, Member } from './channel.ts';
import { eventIds, type Framing, framed } from './framing.ts';
import { JudgedChannel } from './judged-channel.ts';
import type { Frames, Ring } from './ring.ts';
import { nameOf, type RowQuery } from './row-query.ts';
import { type Match, RowView } from './row-view.ts';

const actionNames: Readonly<Record<number, RowAction>> = {
  [actions.insert]: 'INSERT',
  [actions.update]: 'UPDATE',
  [actions.delete]: 'DELETE',
  [actions.truncate]: 'TRUNCATE',
};

/**
 * Channels are told apart by all of the digest, as two clients of one channel get each other's rows. The name is part
 * of the key, because after the table got another key, a query can have another name than at first.
 */
export function channelKey({ name, digest }: RowQuery, framing: Framing): string {
  return `${framing.name}:${name}:${digest}`;
}

export class RowsChannel<M extends Member = Member> extends JudgedChannel<M> {
  readonly key: string;
  readonly view: RowView<RowsChannel<M>>;
  readonly #framing: Framing;

  constructor(query: RowQuery, deps: { ring: Ring; framing: Framing }) {
    super(deps.ring);
    this.key = channelKey(query, deps.framing);
    this.view = new RowView(query, this);
    this.#framing = deps.framing;
  }

  get query(): RowQuery {
    return this.view.query;
  }

  get views(): readonly RowView<RowsChannel<M>>[] {
    return [this.view];
  }

  viewOf(relation: number): RowView | undefined {
    return relation === this.table.id ? this.view : undefined;
  }

  get name(): string {
    return this.query.name;
  }

  get table(): Table {
    return this.query.table;
  }

  describe(): Description {
    const { table, filter, columns } = this.query;
    return { table: table.name, filter: filter?.text ?? null, columns: columns && [...columns] };
  }

  covers(tableName: string): boolean {
    return this.query.table.name === tableName;
  }

  protected assemble(batch: Batch, matches: readonly Match[]): Frames {
    const ends = transactionEnds(batch);
    const parts: Buffer[] = [];
    const { name: ch, query } = this;
    const table = JSON.stringify(query.table.name);
    matches.forEach(({ change, effect }, i) => {
      const isLast = matches[i + 1]?.change.xid !== change.xid && ends.has(change.xid);
      const position = `e${batch.epoch}.${change.seq}`;
      const action = actionNames[change.action];
      const head = `{"type":"change","ch":"${ch}","effect":"${effect}","table":${table},"action":"${action}","id":`;
      const image = effect === 'remove' ? undefined : this.#project(change.newImage!);
      const payload = [Buffer.from(head), change.key.length > 0 ? change.key : nullText];
      if (image !== undefined) payload.push(dataText, image ?? nullText);
      const truncated = image === null ? ',"truncated":true' : '';
      payload.push(
        Buffer.from(`,"pos":"${position}","tx":"${change.xid}"${isLast ? ',"last":true' : ''}${truncated}}`),
      );
      const size = payload.reduce((sum, part) => sum + part.length, 0);
      parts.push(this.#framing.head(size, this.#idOf(position)), ...payload, this.#framing.tail);
    });
    return { buffer: Buffer.concat(parts), count: matches.length };
  }

  /** The image's columns that the channel sends; null: the image lacks one of them. */
  #project(image: Buffer): Buffer | null {
    const projected = this.view.project(image);
    if (projected === null) return null;
    if (!this.#framing.isOneLine || (!projected.includes(0x0a) && !projected.includes(0x0d))) return projected;
    return Buffer.from(onOneLine(projected.toString()));
  }

  /** The bytes of a message of this channel other than a change. */
  frame(text: string, position: string | null = null): Buffer {
    const { isOneLine } = this.#framing;
    return framed(this.#framing, isOneLine ? onOneLine(text) : text, position && this.#idOf(position));
  }

  /** Under policies, the id of an event says with which rights the client got everything up to the position. */
  #idOf(position: string): string {
    return this.query.isRuled ? `${position}${eventIds.channel}${nameOf(this.query.digest)}` : position;
  }
}

const nullText = Buffer.from('null');
const dataText = Buffer.from(',"data":');

/**
 * Replaces line breaks by spaces, because a line break would end the line of an event stream. A
 * value of type json can contain line breaks, but only between its tokens.
 */
function onOneLine(json: string): string {
  return json.replaceAll(/[\r\n]/g, ' ');
}

/** results of transactionEnds; kept because every channel needs them for the batch that is being delivered */
const endsOf = new WeakMap<Batch, ReadonlySet<bigint>>();

/** The transactions whose last change is in this batch. */
function transactionEnds(batch: Batch): ReadonlySet<bigint> {
  const known = endsOf.get(batch);
  if (known) return known;
  const ends = new Set<bigint>();
  const reader = new BatchReader(batch);
  while (reader.next()) if (reader.last) ends.add(BigInt(reader.xid));
  endsOf.set(batch, ends);
  return ends;
}
