/**
 * A channel: what some subscriptions have asked for in the same words, and those of them that are live. All of them get the
 * same Buffer for a batch. Live members are a dense array: a broadcast walks it and allocates nothing.
 *
 * This is plain mode's channel, a set of tables; filtered-channel.ts is the other.
 */
import type { Batch } from '#shared/log/batch.ts';
import type { Catalog } from '../catalog/catalog.ts';
import type { Subscription } from '../relay/cursor.ts';
import type { Skip } from './already-seen.ts';
import type { Frames, Recent, Ring } from './ring.ts';
import { buildFrames, type FrameHeads } from './table-frames.ts';

export abstract class Channel {
  abstract readonly key: string;
  readonly live: Subscription[] = [];
  /** when the live ones last got a change, of performance.now() */
  toldAt = Number.NEGATIVE_INFINITY;
  /** all subscriptions of the channel, live or not */
  readonly users = new Set<Subscription>();
  readonly #ring: Ring;

  constructor(ring: Ring) {
    this.#ring = ring;
  }

  /** Frames of the changes of a batch with a seq above `after`, without those that `skip` drops. */
  abstract framesAfter(batch: Batch, after: number, skip: Skip | null): Frames;

  /** Frames of a whole recent batch: made on first use, then shared. */
  framesOf(recent: Recent): Frames {
    return recent.frames.get(this.key) ?? this.keep(recent, this.framesAfter(recent.batch, 0, null));
  }

  keep(recent: Recent, frames: Frames): Frames {
    this.#ring.keep(recent, this.key, frames);
    return frames;
  }

  enter(member: Subscription): void {
    member.slot = this.live.push(member) - 1;
  }

  leave(member: Subscription): void {
    if (member.slot < 0) return;
    const last = this.live.pop()!;
    if (last !== member) {
      this.live[member.slot] = last;
      last.slot = member.slot;
    }
    member.slot = -1;
  }
}

/** `null`: every attached table, also those attached later. */
export type TableSet = readonly string[] | null;

export function tablesKey(tables: TableSet): string {
  return tables === null ? '*' : JSON.stringify([...tables].sort());
}

export class TablesChannel extends Channel {
  readonly key: string;
  readonly tables: TableSet;
  readonly #heads: FrameHeads;
  readonly #wants: (relation: number) => boolean;

  constructor(tables: TableSet, deps: { catalog: Catalog; heads: FrameHeads; ring: Ring }) {
    super(deps.ring);
    this.key = tablesKey(tables);
    this.tables = tables;
    this.#heads = deps.heads;
    const wanted = tables === null ? null : new Set(tables);
    const { catalog } = deps;
    this.#wants = wanted === null ? () => true : (relation) => wanted.has(catalog.byId(relation)?.name ?? '');
  }

  /** Plain mode has no snapshots, hence nothing to skip. */
  framesAfter(batch: Batch, after: number): Frames {
    return buildFrames(batch, this.#heads, this.#wants, after);
  }
}
