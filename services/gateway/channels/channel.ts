/**
 * A channel: the same changes in the same form, for all clients that asked for them. `live` holds
 * the members that get each batch as it comes; all of them get the same Buffer. `live` is a dense
 * array, so that a broadcast walks it without allocating.
 *
 * There are two kinds: a set of tables (plain mode, tables-channel.ts) and the rows of one table
 * (plank.v1, rows-channel.ts).
 */
import type { Batch } from '#shared/log/batch.ts';
import type { Effect } from '#shared/wire.ts';
import type { Table } from '../catalog/catalog.ts';
import type { AlreadySeen } from './already-seen.ts';
import type { Change } from './change.ts';
import type { Frames, Recent, Ring } from './ring.ts';

/** A member of a channel: a cursor into the log (relay/cursor.ts). */
export interface Member {
  /** the member's index in the channel's `live`; -1 while the member is not live */
  slot: number;
}

/** The channel's request, as text for people. */
export interface Description {
  table: string;
  filter: string | null;
  columns: string[] | null;
}

export abstract class Channel<M extends Member = Member> {
  /** channels with equal keys make equal frames */
  abstract readonly key: string;
  readonly live: M[] = [];
  /** when the live members last got a change, on the clock of performance.now() */
  sentAt = Number.NEGATIVE_INFINITY;
  /** all members, live or not */
  readonly members = new Set<M>();
  readonly #ring: Ring;

  constructor(ring: Ring) {
    this.#ring = ring;
  }

  /** The name for operators and clients. Equal requests have equal names on every replica and every transport. */
  abstract get name(): string;

  /** The one table whose rows the channel sends; null: the channel sends the changes of a set of tables. */
  abstract get table(): Table | null;

  abstract describe(): Description;

  /** Whether the channel sends changes of the table with this name. */
  abstract covers(tableName: string): boolean;

  /**
   * The effect of a change of a covered table on the rows that members see; null: no effect.
   * 'sent': members get every change, without an effect. Throws ImageError.
   */
  abstract effectOf(change: Change): Effect | 'sent' | null;

  /** Frames of the batch's changes with a seq above `after`, without the changes that `alreadySeen` drops. */
  abstract framesAfter(batch: Batch, after: number, alreadySeen: AlreadySeen | null): Frames;

  /** Frames of a whole recent batch. They are made on first use, then shared. */
  framesOf(recent: Recent): Frames {
    return recent.frames.get(this.key) ?? this.keep(recent, this.framesAfter(recent.batch, 0, null));
  }

  keep(recent: Recent, frames: Frames): Frames {
    this.#ring.keep(recent, this.key, frames);
    return frames;
  }

  enter(member: M): void {
    member.slot = this.live.push(member) - 1;
  }

  /** Ends the member's being live. Does nothing if the member is not live. */
  leave(member: M): void {
    if (member.slot < 0) return;
    const last = this.live.pop()!;
    if (last !== member) {
      this.live[member.slot] = last;
      last.slot = member.slot;
    }
    member.slot = -1;
  }
}
