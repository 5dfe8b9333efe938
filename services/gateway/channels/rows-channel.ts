/**
 * A channel of plank.v1: the rows of one table that a filter admits, in some of its columns. An update can make a row enter or
 * leave it, so the filter is asked of the old and of the new image. Of a row that leaves, only the key is told.
 */
import { actions, type Batch, BatchReader, isPartial } from '#shared/log/batch.ts';
import type { Effect, RowAction } from '#shared/wire.ts';
import type { Table } from '../catalog/catalog.ts';
import type { RowFilter } from '../filter/row-filter.ts';
import { ImageError } from '../filter/row-filter.ts';
import type { Skip } from './already-seen.ts';
import { type Change, changesOf } from './change.ts';
import { type Framing, framed } from './framing.ts';
import { project } from './projection.ts';
import type { Frames, Ring, Torn } from './ring.ts';
import type { Asked } from './row-query.ts';
import { Channel } from './tables-channel.ts';

const none: Frames = { buffer: Buffer.alloc(0), count: 0 };
const actionNames: Readonly<Record<number, RowAction>> = {
  [actions.insert]: 'INSERT',
  [actions.update]: 'UPDATE',
  [actions.delete]: 'DELETE',
  [actions.truncate]: 'TRUNCATE',
};

export interface ChannelWords {
  /** names what was asked for, of the table as it was then: the same on every replica */
  name: string;
  table: Table;
  filter: RowFilter | null;
  /** with those of the key; null: all */
  columns: readonly string[] | null;
  /** what these were made of */
  asked: Asked;
}

/** A change and what it does to the channel's rows. */
export interface Match {
  change: Change;
  effect: Effect;
}

/** Subscriptions of one name may have different columns once the table has another key. */
export function channelKey({ name, columns }: ChannelWords, framing: Framing): string {
  return `${framing.name}:${name}${columns ? JSON.stringify(columns) : ''}`;
}

export class FilteredChannel extends Channel {
  readonly key: string;
  readonly name: string;
  readonly words: ChannelWords;
  readonly #framing: Framing;
  readonly #columns: ReadonlySet<string> | null;
  /** what matched in the batch that the hub is passing on */
  readonly pending: Match[] = [];
  /** something in that batch could not be judged, and nothing behind it was */
  torn: Torn | null = null;

  constructor(words: ChannelWords, deps: { ring: Ring; framing: Framing }) {
    super(deps.ring);
    this.words = words;
    this.name = words.name;
    this.key = channelKey(words, deps.framing);
    this.#framing = deps.framing;
    this.#columns = words.columns && new Set(words.columns);
  }

  /** Null: the change is not about this channel's rows. */
  effectOf(change: Change): Effect | null {
    if (change.action === actions.truncate) return 'remove';
    const { filter } = this.words;
    const before = change.oldImage !== null && (filter === null || filter.admits(change.oldRow!));
    const after = change.newImage !== null && (filter === null || filter.admits(change.newRow!));
    if (after) return before ? 'change' : 'add';
    return before ? 'remove' : null;
  }

  framesAfter(batch: Batch, after: number, skip: Skip | null): Frames {
    const skipped = skip && !skip.done ? skippedSeqs(batch, after, skip) : null;
    const matches: Match[] = [];
    for (const change of changesOf(batch, (relation) => relation === this.words.table.id)) {
      if (change.seq <= after || skipped?.has(change.seq)) continue;
      try {
        const effect = this.effectOf(change);
        if (effect) matches.push({ change, effect });
      } catch (error) {
        if (!(error instanceof ImageError)) throw error;
        return { ...this.build(batch, matches), torn: error.why };
      }
    }
    return this.build(batch, matches);
  }

  /** The frames of what the hub found in the batch that it is passing on, which it then forgets. */
  take(batch: Batch): Frames {
    const frames = this.build(batch, this.pending);
    const taken: Frames = this.torn ? { ...frames, torn: this.torn } : frames;
    this.pending.length = 0;
    this.torn = null;
    return taken;
  }

  /** The frames of matches of one batch; none, and torn, where an image is not what it should be. */
  build(batch: Batch, matches: readonly Match[]): Frames {
    if (matches.length === 0) return none;
    try {
      return this.#assemble(batch, matches);
    } catch (error) {
      if (!(error instanceof ImageError)) throw error;
      return { ...none, torn: error.why };
    }
  }

  #assemble(batch: Batch, matches: readonly Match[]): Frames {
    const ends = transactionEnds(batch);
    const parts: Buffer[] = [];
    matches.forEach(({ change, effect }, i) => {
      const isLast = matches[i + 1]?.change.xid !== change.xid && ends.has(change.xid);
      const position = `e${batch.epoch}.${change.seq}`;
      const { table } = this.words;
      const head = `{"type":"change","ch":"${this.name}","effect":"${effect}","table":${JSON.stringify(table.name)},"action":"${actionNames[change.action]}","id":`;
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

  /** Null where a column that is wanted was left out. */
  #project(image: Buffer): Buffer | null {
    const projected = this.#columns ? project(image, this.#columns) : isPartial(image) ? null : image;
    if (projected === null) return null;
    if (!this.#framing.isOneLine || (!projected.includes(0x0a) && !projected.includes(0x0d))) return projected;
    return Buffer.from(onOneLine(projected.toString()));
  }

  /** A frame of this channel that is no change, wrapped. */
  wrapped(text: string, position: string | null = null): Buffer {
    return framed(this.#framing, this.#framing.isOneLine ? onOneLine(text) : text, position);
  }
}

const nullText = Buffer.from('null');
const dataText = Buffer.from(',"data":');

/** A value of type json may contain line breaks, between its tokens only; in an event stream they would end the line. */
function onOneLine(json: string): string {
  return json.replaceAll(/[\r\n]/g, ' ');
}

/** Of the batch that is being passed on, which every channel asks for. */
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

function skippedSeqs(batch: Batch, after: number, skip: Skip): Set<number> {
  const seqs = new Set<number>();
  const reader = new BatchReader(batch);
  while (reader.next()) if (reader.seq > after && skip.drops(BigInt(reader.xid))) seqs.add(reader.seq);
  return seqs;
}
