/**
 * A channel: the set of tables that some connections asked for, and those of them that are live. All of them get the same
 * Buffer. Members are a dense array: a broadcast walks it and allocates nothing.
 */
import type { Catalog } from '#shared/catalog.ts';
import { buildFrames, type FrameHeads } from './frames.ts';
import type { Frames, Recent, Ring } from './ring.ts';

export interface Member {
  /** its place in the channel's members, -1 where it is in none */
  slot: number;
}

/** `null`: every attached table, also those attached later. */
export type TableSet = readonly string[] | null;

export function channelKey(tables: TableSet): string {
  return tables === null ? '*' : JSON.stringify([...tables].sort());
}

export class Channel<M extends Member> {
  readonly key: string;
  readonly tables: TableSet;
  readonly members: M[] = [];
  /** connections that use this channel, live or catching up */
  users = 0;
  readonly #catalog: Catalog;
  readonly #heads: FrameHeads;
  readonly #ring: Ring;
  readonly #wants: (relation: number) => boolean;

  constructor(tables: TableSet, deps: { catalog: Catalog; heads: FrameHeads; ring: Ring }) {
    this.key = channelKey(tables);
    this.tables = tables;
    this.#catalog = deps.catalog;
    this.#heads = deps.heads;
    this.#ring = deps.ring;
    const wanted = tables === null ? null : new Set(tables);
    this.#wants = wanted === null ? () => true : (relation) => wanted.has(this.#catalog.byId(relation)?.name ?? '');
  }

  /** Frames of a whole recent batch: made on first use, then shared. */
  framesOf(recent: Recent): Frames {
    let frames = recent.frames.get(this.key);
    if (!frames) {
      frames = buildFrames(recent.batch, this.#heads, this.#wants);
      this.#ring.keep(recent, this.key, frames);
    }
    return frames;
  }

  /** Frames of the part of a batch behind the seq `after`. */
  framesAfter(batch: Recent['batch'], after: number): Frames {
    return buildFrames(batch, this.#heads, this.#wants, after);
  }

  add(member: M): void {
    member.slot = this.members.push(member) - 1;
  }

  remove(member: M): void {
    if (member.slot < 0) return;
    const last = this.members.pop()!;
    if (last !== member) {
      this.members[member.slot] = last;
      last.slot = member.slot;
    }
    member.slot = -1;
  }
}
