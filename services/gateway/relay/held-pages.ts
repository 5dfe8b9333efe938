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
  #bytes = 0;

  constructor(maxBytes: number) {
    this.#maxBytes = maxBytes;
  }

  /** the memory of the held pages; a batch counts once for each cursor that holds it */
  get bytes(): number {
    return this.#bytes;
  }

  /**
   * Holds these batches until `taken` resolves, then resolves with true. If the batches would
   * exceed the bound, holds nothing and resolves with false at once.
   */
  async until(taken: () => Promise<void>, batches: readonly Batch[]): Promise<boolean> {
    const bytes = memoryOf(batches);
    if (this.#bytes + bytes > this.#maxBytes) return false;
    this.#bytes += bytes;
    try {
      await taken();
    } finally {
      this.#bytes -= bytes;
    }
    return true;
  }
}

/** Counts whole buffers, because a view keeps its whole buffer alive. */
function memoryOf(batches: readonly Batch[]): number {
  const buffers = new Set(batches.map(({ buffer }) => buffer.buffer));
  let bytes = 0;
  for (const { byteLength } of buffers) bytes += byteLength;
  return bytes;
}
