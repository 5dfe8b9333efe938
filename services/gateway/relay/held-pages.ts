/**
 * Pages of history in memory that slow clients have not read yet. A page is read for a cursor in
 * one piece and sent batch by batch, as its client takes it. Thousands of slow clients would hold a
 * page each. So what they hold together is bounded: above the bound a cursor lets go of its page,
 * and reads on from its place when the client has taken what was written.
 */
import type { Batch } from '#shared/log/batch.ts';

export class HeldPages {
  readonly #maxBytes: number;
  #bytes = 0;

  constructor(maxBytes: number) {
    this.#maxBytes = maxBytes;
  }

  /** of memory; the same batch counts once for each cursor that holds it */
  get bytes(): number {
    return this.#bytes;
  }

  /**
   * Holds these batches until `taken` resolves. Resolves with false at once, and holds nothing,
   * where that would exceed the bound.
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

/** Whole buffers: a view keeps all of one alive. */
function memoryOf(batches: readonly Batch[]): number {
  const buffers = new Set(batches.map(({ buffer }) => buffer.buffer));
  let bytes = 0;
  for (const { byteLength } of buffers) bytes += byteLength;
  return bytes;
}
