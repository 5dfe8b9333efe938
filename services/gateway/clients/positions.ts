/**
 * The rhythm of positions. A quiet client learns from a position that changes can still reach it:
 * while this replica is fresh, each client is sent one every few seconds. What must stay true: no
 * position is sent while that is in doubt, because clients go by silence.
 */
import { formatPosition } from '#shared/wire.ts';
import { type Framing, framed } from '../channels/framing.ts';
import type { Hub } from '../relay/hub.ts';

/** PROTOCOL.md: `pos_ms` */
export const positionEveryMs = 5_000;

export class Positions {
  readonly #hub: Pick<Hub, 'epoch' | 'seq'>;
  readonly #isFresh: () => boolean;
  /** the last frame of each framing: thousands of idle clients get the same */
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
