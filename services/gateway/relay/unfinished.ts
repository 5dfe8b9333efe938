/**
 * The beginning of a transaction whose end has not arrived, as the transaction goes on in the next batch. While sets
 * of policies are in use, the feed holds it back: the end may change a set, and then none of the transaction's changes
 * may be delivered under the set.
 */
import { type Batch, BatchReader, splitBefore } from '#shared/log/batch.ts';

/** a larger beginning is not held back any longer */
export const maxUnfinishedBytes = 16 * 1024 * 1024;

export class Unfinished {
  #batches: Batch[] = [];
  #bytes = 0;

  /** The last seq that is held back; null: nothing is. */
  get lastSeq(): number | null {
    return this.#batches.at(-1)?.lastSeq ?? null;
  }

  /**
   * Adds the batch that follows. Returns the batches to deliver, which end with a transaction. Where the beginning of
   * a transaction exceeds 16 MB, or `mustWait` is false, the returned batches end within a transaction.
   */
  add(batch: Batch, mustWait: boolean): Batch[] {
    if (!mustWait) return [...this.drop(), batch];
    const end = lastEndIn(batch);
    if (end === batch.lastSeq) return [...this.drop(), batch];
    const parts = end === null ? [batch] : splitBefore(batch, [end + 1]);
    const rest = parts.pop()!;
    const done = parts.length > 0 ? [...this.drop(), ...parts] : [];
    this.#batches.push(rest);
    this.#bytes += rest.buffer.length;
    return this.#bytes > maxUnfinishedBytes ? [...done, ...this.drop()] : done;
  }

  /** Forgets what is held back, and returns it. */
  drop(): Batch[] {
    const batches = this.#batches;
    this.#batches = [];
    this.#bytes = 0;
    return batches;
  }
}

/** The seq of the last change in the batch that ends a transaction; null: there is none. */
function lastEndIn(batch: Batch): number | null {
  let end: number | null = null;
  const reader = new BatchReader(batch);
  while (reader.next()) if (reader.last) end = reader.seq;
  return end;
}
