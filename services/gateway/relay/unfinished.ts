/**
 * Holds back the beginning of a transaction that goes on in the next batch, so that its end has not arrived yet. The
 * feed uses this while sets of policies are in use. The end of the transaction may change a set, and then no change of
 * the transaction may be delivered under the former values of the set.
 */
import { type Batch, BatchReader, splitBefore } from '#shared/log/batch.ts';

/** the beginning of a transaction is held back up to this size, and delivered when it gets larger */
export const maxUnfinishedBytes = 16 * 1024 * 1024;

export class Unfinished {
  #batches: Batch[] = [];
  #bytes = 0;

  /** The last seq that is held back; null: nothing is held back. */
  get lastSeq(): number | null {
    return this.#batches.at(-1)?.lastSeq ?? null;
  }

  /**
   * Adds the next batch, and returns the batches to deliver now. They end where a transaction ends. Two exceptions:
   * if the beginning of a transaction exceeds 16 MB, or if `mustWait` is false, they may end within a transaction.
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
