/**
 * The rhythm of positions, by which quiet clients learn that changes can still reach them: while this replica is fresh, each is told every
 * few seconds how far it is. What must stay true: nothing is said while that is in doubt; silence is what clients go by.
 */
import { formatPosition } from '#shared/wire.ts';
import { type Framing, framed } from '../channels/framing.ts';
import type { Hub } from '../relay/hub.ts';

/** PROTOCOL.md: `pos_ms` */
export const positionEveryMs = 5_000;

export class Positions {
  readonly #hub: Pick<Hub, 'epoch' | 'seq'>;
  readonly #isFresh: () => boolean;
  /** the last frame of each framing: thousands of idle clients get the same one */
  readonly #frames = new Map<Framing, { epoch: number; seq: number; frame: Buffer }>();

  constructor(hub: Pick<Hub, 'epoch' | 'seq'>, isFresh: () => boolean) {
    this.#hub = hub;
    this.#isFresh = isFresh;
  }

  get areSaid(): boolean {
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
