/**
 * Pages of history in memory that slow clients have not taken yet. A cursor reads a page in one
 * piece, and sends it batch by batch at its client's pace. Thousands of slow clients would hold a
 * page each, so the sum of their pages is bounded. If a page would exceed the bound, the cursor
 * drops the rest of its page. When the client has taken the bytes that were written, the cursor
 * reads on from its place.
 */
import type { Batch } from '#shared/log/batch.ts';

export class HeldPages {
  readonly #maxBytes: number;
  /** How many cursors hold a buffer: cursors that read at one place share its page. */
  readonly #holders = new Map<ArrayBufferLike, number>();
  #bytes = 0;

  constructor(maxBytes: number) {
    this.#maxBytes = maxBytes;
  }

  /** the size of all buffers that are held, each counted once; a batch keeps the whole of its buffer in memory */
  get bytes(): number {
    return this.#bytes;
  }

  /**
   * Holds these batches until `taken` resolves, then resolves with true. If they would exceed the bound, it holds
   * nothing and resolves with false at once.
   */
  async until(taken: () => Promise<void>, batches: readonly Batch[]): Promise<boolean> {
    const buffers = new Set(batches.map(({ buffer }) => buffer.buffer));
    let more = 0;
    for (const buffer of buffers) if (!this.#holders.has(buffer)) more += buffer.byteLength;
    if (this.#bytes + more > this.#maxBytes) return false;
    this.#bytes += more;
    for (const buffer of buffers) this.#holders.set(buffer, (this.#holders.get(buffer) ?? 0) + 1);
    try {
      await taken();
    } finally {
      for (const buffer of buffers) this.#release(buffer);
    }
    return true;
  }

  #release(buffer: ArrayBufferLike): void {
    const others = this.#holders.get(buffer)! - 1;
    if (others > 0) {
      this.#holders.set(buffer, others);
    } else {
      this.#holders.delete(buffer);
      this.#bytes -= buffer.byteLength;
    }
  }
}
