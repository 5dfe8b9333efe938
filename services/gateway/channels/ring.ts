/**
 * The recent log in memory, bounded in bytes. Cursors that are a little behind read from the ring.
 * Each batch keeps the frames that channels made of it, so that all cursors at the same place share
 * the frames.
 *
 * The bound counts all memory that the ring keeps alive: the objects, and whole buffers even if only
 * a view of them is used. Small frames are views into Node's buffer pool. One such view would keep
 * its whole part of the pool alive. So small frames are copied into the batch's own memory, which is
 * freed with the batch.
 */
import type { Batch } from '#shared/log/batch.ts';
import type { ImageError } from '../filter/row-filter.ts';

export interface Recent {
  readonly batch: Batch;
  /** frames of the whole batch by channel key */
  readonly frames: Map<string, Frames>;
  /** holds copies of small frames; used up to `slabUsed` */
  slab: Buffer;
  slabUsed: number;
  /** memory of the batch with its frames */
  bytes: number;
}

export interface Frames {
  readonly buffer: Buffer;
  readonly count: number;
  /** why the channel cannot judge the change after these frames; absent: it could judge every change */
  readonly undecodable?: Undecodable;
}

/**
 * Why a change cannot be judged: its image has another shape than the table; or its row is above
 * the bound, and the image lacks a column that the channel needs.
 */
export type Undecodable = ImageError['why'];

/**
 * estimated memory of: the objects around a batch, an entry in the batch's map, the objects around
 * frames, and a Buffer object
 */
const itemBytes = 600;
const entryBytes = 48;
const framesBytes = 80;
const bufferBytes = 250;
const noSlab = Buffer.alloc(0);
const leastSlab = 512;
const mostSlab = 64 * 1024;

export class Ring {
  readonly #maxBytes: number;
  #items: Recent[] = [];
  /** items before this index are dropped; once there are many of them, the array is shortened */
  #start = 0;
  #bytes = 0;

  constructor(maxBytes: number) {
    this.#maxBytes = maxBytes;
  }

  get bytes(): number {
    return this.#bytes;
  }

  push(batch: Batch): Recent {
    const recent = recentOf(batch);
    this.#items.push(recent);
    this.#bytes += recent.bytes;
    this.#trim();
    return recent;
  }

  /** Keeps a channel's frames of a batch for as long as the batch itself is kept. */
  keep(recent: Recent, channelKey: string, frames: Frames): void {
    const before = recent.bytes;
    const isHere = this.find(recent.batch.firstSeq) === recent;
    recent.frames.set(channelKey, isHere ? this.#owned(recent, frames) : frames);
    if (!isHere) return;
    this.#bytes += recent.bytes - before;
    this.#trim();
  }

  /** The same frames, in memory that is counted for the batch. */
  #owned(recent: Recent, frames: Frames): Frames {
    recent.bytes += entryBytes;
    const { buffer } = frames;
    const { length } = buffer;
    if (length === 0) return frames;
    recent.bytes += framesBytes;
    if (length >= buffer.buffer.byteLength / 2) {
      recent.bytes += buffer.buffer.byteLength + bufferBytes;
      return frames;
    }
    if (recent.slab.length - recent.slabUsed < length) {
      const size = Math.max(length, Math.min(mostSlab, Math.max(leastSlab, 2 * recent.slab.length)));
      recent.slab = Buffer.allocUnsafeSlow(size);
      recent.slabUsed = 0;
      recent.bytes += size + bufferBytes;
    }
    const copy = recent.slab.subarray(recent.slabUsed, recent.slabUsed + length);
    recent.slabUsed += buffer.copy(copy);
    recent.bytes += bufferBytes;
    return { ...frames, buffer: copy };
  }

  /** The batch that holds the seq; undefined: the batch is not in memory. */
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

  /** Replaces each batch by the result of `map`. Drops the frames of each batch that changed. */
  replace(map: (batch: Batch) => Batch): void {
    for (let i = this.#start; i < this.#items.length; i++) {
      const item = this.#items[i]!;
      const other = map(item.batch);
      if (other === item.batch) continue;
      const changed = recentOf(other);
      this.#bytes += changed.bytes - item.bytes;
      this.#items[i] = changed;
    }
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
      this.#bytes -= gone.bytes;
    }
    if (this.#start > 1_000 && this.#start * 2 > this.#items.length) {
      this.#items = this.#items.slice(this.#start);
      this.#start = 0;
    }
  }
}

function recentOf(batch: Batch): Recent {
  const bytes = batch.buffer.buffer.byteLength + itemBytes;
  return { batch, frames: new Map(), slab: noSlab, slabUsed: 0, bytes };
}
