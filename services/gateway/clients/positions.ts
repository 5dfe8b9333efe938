/**
 * The positions for quiet clients. A position tells a quiet client that changes can still reach it:
 * while this replica is fresh, each quiet client gets one every 5 s. Invariant: no position is sent while
 * it is in doubt whether changes arrive, because clients take silence as the sign of an outage.
 */
import { formatPosition } from '#shared/wire.ts';
import { type Framing, framed } from '../channels/framing.ts';
import type { Hub } from '../relay/hub.ts';

/** `pos_ms` in PROTOCOL.md */
export const positionEveryMs = 5_000;

export class Positions {
  readonly #hub: Pick<Hub, 'epoch' | 'seq'>;
  readonly #isFresh: () => boolean;
  /** the last frame in each framing, kept because thousands of idle clients get the same frame */
  readonly #frames = new Map<Framing, { epoch: number; seq: number; frame: Buffer }>();

  constructor(hub: Pick<Hub, 'epoch' | 'seq'>, isFresh: () => boolean) {
    this.#hub = hub;
    this.#isFresh = isFresh;
  }

  get areSent(): boolean {
    return this.#isFresh();
  }

  frame(framing: Framing, seq: number): Buffer {
    const { epoch } = this.#hub;
    const known = this.#frames.get(framing);
    if (known?.seq === seq && known.epoch === epoch) return known.frame;
    const pos = formatPosition({ epoch, seq });
    const frame = framed(framing, JSON.stringify({ type: 'pos', pos }), pos);
    this.#frames.set(framing, { epoch, seq, frame });
    return frame;
  }
}
