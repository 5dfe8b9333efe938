/**
 * A channel that judges changes. For each table of the channel, a view (row-view.ts) decides which effect a change has
 * on the rows that members see. For live members, table-index.ts finds the views that a change may concern, and the
 * hub collects their matches in `pending`. For a cursor that catches up, `framesAfter` judges every change.
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

  /** The frames of the matches, in order. There is at least one match. Throws ImageError. */
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

  /** The frames of the matches. If an image is malformed, there are no frames, and `undecodable` has the reason. */
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
