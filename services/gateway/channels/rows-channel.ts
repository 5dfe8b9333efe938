/**
 * A channel of plank.v1 and of event streams: the rows of one table that a filter admits, with all
 * or some of the columns. An update can move a row into or out of the channel, so the filter judges
 * the old image and the new image. If a row leaves the channel, only its key is sent.
 */
import { actions, type Batch, BatchReader, isPartial } from '#shared/log/batch.ts';
import type { Effect, RowAction } from '#shared/wire.ts';
import type { Table } from '../catalog/catalog.ts';
import { ImageError } from '../filter/row-filter.ts';
import type { AlreadySeen } from './already-seen.ts';
import { type Change, changesOf } from './change.ts';
import { Channel, type Description, type Member } from './channel.ts';
import { type Framing, framed } from './framing.ts';
import { project } from './projection.ts';
import type { Frames, Ring, Undecodable } from './ring.ts';
import type { RowQuery } from './row-query.ts';

const none: Frames = { buffer: Buffer.alloc(0), count: 0 };
const actionNames: Readonly<Record<number, RowAction>> = {
  [actions.insert]: 'INSERT',
  [actions.update]: 'UPDATE',
  [actions.delete]: 'DELETE',
  [actions.truncate]: 'TRUNCATE',
};

/** A change with its effect on the channel's rows. */
export interface Match {
  change: Change;
  effect: Effect;
}

/** The key includes the columns: after the table got another key, channels of one name may have different columns. */
export function channelKey({ name, columns }: RowQuery, framing: Framing): string {
  return `${framing.name}:${name}${columns ? JSON.stringify(columns) : ''}`;
}

export class RowsChannel<M extends Member = Member> extends Channel<M> {
  readonly key: string;
  readonly query: RowQuery;
  readonly #framing: Framing;
  readonly #columns: ReadonlySet<string> | null;
  /** matches in the batch that the hub is delivering */
  readonly pending: Match[] = [];
  /** why a change in that batch could not be judged, so that no later change was judged; null: all were judged */
  undecodable: Undecodable | null = null;

  constructor(query: RowQuery, deps: { ring: Ring; framing: Framing }) {
    super(deps.ring);
    this.query = query;
    this.key = channelKey(query, deps.framing);
    this.#framing = deps.framing;
    this.#columns = query.columns && new Set(query.columns);
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

  /** Null: the change has no effect on this channel's rows. */
  effectOf(change: Change): Effect | null {
    if (change.action === actions.truncate) return 'remove';
    const { filter } = this.query;
    const before = change.oldImage !== null && (filter === null || filter.admits(change.oldRow!));
    const after = change.newImage !== null && (filter === null || filter.admits(change.newRow!));
    if (after) return before ? 'change' : 'add';
    return before ? 'remove' : null;
  }

  framesAfter(batch: Batch, after: number, alreadySeen: AlreadySeen | null): Frames {
    const seen = alreadySeen && !alreadySeen.done ? seenSeqs(batch, after, alreadySeen) : null;
    const matches: Match[] = [];
    for (const change of changesOf(batch, (relation) => relation === this.query.table.id)) {
      if (change.seq <= after || seen?.has(change.seq)) continue;
      try {
        const effect = this.effectOf(change);
        if (effect) matches.push({ change, effect });
      } catch (error) {
        if (!(error instanceof ImageError)) throw error;
        return { ...this.#build(batch, matches), undecodable: error.why };
      }
    }
    return this.#build(batch, matches);
  }

  /** The frames of the matches in the batch that the hub is delivering. Clears the matches. */
  takePending(batch: Batch): Frames {
    const frames = this.#build(batch, this.pending);
    const taken: Frames = this.undecodable ? { ...frames, undecodable: this.undecodable } : frames;
    this.pending.length = 0;
    this.undecodable = null;
    return taken;
  }

  /** If an image is malformed, returns no frames, and `undecodable` with the reason. */
  #build(batch: Batch, matches: readonly Match[]): Frames {
    if (matches.length === 0) return none;
    try {
      return this.#assemble(batch, matches);
    } catch (error) {
      if (!(error instanceof ImageError)) throw error;
      return { ...none, undecodable: error.why };
    }
  }

  #assemble(batch: Batch, matches: readonly Match[]): Frames {
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
      parts.push(this.#framing.head(size, position), ...payload, this.#framing.tail);
    });
    return { buffer: Buffer.concat(parts), count: matches.length };
  }

  /** The image's columns that the channel sends; null: the image lacks one of them. */
  #project(image: Buffer): Buffer | null {
    const projected = this.#columns ? project(image, this.#columns) : isPartial(image) ? null : image;
    if (projected === null) return null;
    if (!this.#framing.isOneLine || (!projected.includes(0x0a) && !projected.includes(0x0d))) return projected;
    return Buffer.from(onOneLine(projected.toString()));
  }

  /** The bytes of a message of this channel other than a change. */
  frame(text: string, position: string | null = null): Buffer {
    return framed(this.#framing, this.#framing.isOneLine ? onOneLine(text) : text, position);
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

function seenSeqs(batch: Batch, after: number, alreadySeen: AlreadySeen): Set<number> {
  const seqs = new Set<number>();
  const reader = new BatchReader(batch);
  while (reader.next()) if (reader.seq > after && alreadySeen.drops(BigInt(reader.xid))) seqs.add(reader.seq);
  return seqs;
}
