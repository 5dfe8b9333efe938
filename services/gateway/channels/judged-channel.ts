/**
 * A channel whose changes are judged: for each table that the channel shows, a view says what a change does to the
 * rows that members see. The hub finds the views that a change concerns by table-index.ts, and collects their matches
 * here. A cursor that catches up has every change judged.
 */
import { type Batch, BatchReader } from '#shared/log/batch.ts';
import type { Effect } from '#shared/wire.ts';
import { ImageError } from '../filter/row-filter.ts';
import type { AlreadySeen } from './already-seen.ts';
import { type Change, changesOf } from './change.ts';
import { Channel, type Member } from './channel.ts';
import type { Frames, Undecodable } from './ring.ts';
import type { Judging, Match, RowView } from './row-view.ts';

const none: Frames = { buffer: Buffer.alloc(0), count: 0 };

export abstract class JudgedChannel<M extends Member = Member> extends Channel<M> implements Judging {
  readonly pending: Match[] = [];
  undecodable: Undecodable | null = null;

  abstract readonly views: Iterable<RowView<JudgedChannel<M>>>;

  /** The view of a table, by Table.id; undefined: the channel does not show the table. */
  abstract viewOf(relation: number): RowView | undefined;

  /** The frames of at least one match, in order. Throws ImageError. */
  protected abstract assemble(batch: Batch, matches: readonly Match[]): Frames;

  effectOf(change: Change): Effect | null {
    return this.viewOf(change.relation)?.effectOf(change) ?? null;
  }

  framesAfter(batch: Batch, after: number, alreadySeen: AlreadySeen | null): Frames {
    const seen = alreadySeen && !alreadySeen.done ? seenSeqs(batch, after, alreadySeen) : null;
    const matches: Match[] = [];
    for (const change of changesOf(batch, (relation) => this.viewOf(relation) !== undefined)) {
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
      return this.assemble(batch, matches);
    } catch (error) {
      if (!(error instanceof ImageError)) throw error;
      return { ...none, undecodable: error.why };
    }
  }
}

function seenSeqs(batch: Batch, after: number, alreadySeen: AlreadySeen): Set<number> {
  const seqs = new Set<number>();
  const reader = new BatchReader(batch);
  while (reader.next()) if (reader.seq > after && alreadySeen.drops(BigInt(reader.xid))) seqs.add(reader.seq);
  return seqs;
}
