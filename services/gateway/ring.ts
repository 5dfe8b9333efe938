/**
 * The recent log in memory, bounded in bytes: what clients that are a little behind read from. Each batch keeps the frames
 * that a channel made of it, so that any number of clients behind by the same stretch share them.
 */
import type { Batch } from '#shared/batch.ts';

export interface Recent {
  readonly batch: Batch;
  /** frames of the whole batch by channel key; empty: the channel has none in it */
  readonly frames: Map<string, Frames>;
}

export interface Frames {
  readonly buffer: Buffer;
  readonly count: number;
  /** of the last change among them */
  readonly lastSeq?: number;
  /** behind these is a change that the channel cannot judge: its image is of another shape of the table */
  readonly torn?: true;
}

export class Ring {
  readonly #maxBytes: number;
  #items: Recent[] = [];
  /** items before this index are dropped; the array is cut when they are many */
  #start = 0;
  #bytes = 0;

  constructor(maxBytes: number) {
    this.#maxBytes = maxBytes;
  }

  get bytes(): number {
    return this.#bytes;
  }

  push(batch: Batch): Recent {
    const recent: Recent = { batch, frames: new Map() };
    this.#items.push(recent);
    this.#bytes += batch.buffer.length;
    this.#trim();
    return recent;
  }

  /** Remembers frames made of a batch, as long as the batch itself is remembered. */
  keep(recent: Recent, channelKey: string, frames: Frames): void {
    recent.frames.set(channelKey, frames);
    if (this.find(recent.batch.firstSeq) === recent) {
      this.#bytes += frames.buffer.length;
      this.#trim();
    }
  }

  /** The batch that holds the seq, undefined where it is not in memory. */
  find(seq: number): Recent | undefined {
    let low = this.#start;
    let high = this.#items.length - 1;
    while (low <= high) {
      const middle = (low + high) >> 1;
      const { batch } = this.#items[middle]!;
      if (seq < batch.firstSeq) high = middle - 1;
      else if (seq > batch.lastSeq) low = middle + 1;
      else return this.#items[middle];
    }
    return undefined;
  }

  clear(): void {
    this.#items = [];
    this.#start = 0;
    this.#bytes = 0;
  }

  #trim(): void {
    while (this.#bytes > this.#maxBytes && this.#start < this.#items.length - 1) {
      const gone = this.#items[this.#start]!;
      this.#items[this.#start++] = undefined as unknown as Recent;
      this.#bytes -= gone.batch.buffer.length;
      for (const frames of gone.frames.values()) this.#bytes -= frames.buffer.length;
    }
    if (this.#start > 1_000 && this.#start * 2 > this.#items.length) {
      this.#items = this.#items.slice(this.#start);
      this.#start = 0;
    }
  }
}
