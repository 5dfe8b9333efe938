/**
 * How batches get from the listener to the gateways. The truth is plank.log: both sides can read there whatever the
 * fan-out loses, delays or refuses. Two implementations, one contract suite.
 */
import type { Batch } from './batch.ts';

export type PublishResult =
  | { status: 'published' }
  /** the fan-out has it already and refused the repeat */
  | { status: 'repeated'; lastSeq: number }
  /** changes before it are missing: publish from lastSeq + 1 */
  | { status: 'gap'; lastSeq: number }
  /** a later term has published: this listener no longer leads */
  | { status: 'deposed' };

export interface StreamHead {
  epoch: number;
  term: number;
  lastSeq: number;
}

export interface Publisher {
  /**
   * Rejects if the fan-out does not answer; it may have taken the batch anyway. `startsOver` discards what the
   * fan-out has: the changes between that and this batch no longer exist anywhere.
   */
  publish(batch: Batch, term: number, startsOver?: boolean): Promise<PublishResult>;
  /** The last seq in the fan-out; null if it has nothing of this epoch. */
  lastSeq(epoch: number): Promise<number | null>;
  /** What was published last, of any epoch; null if that is not known. */
  head(): Promise<StreamHead | null>;
  /** How many batches the fan-out has, and about how much memory they take. Rejects if it does not answer. */
  size(): Promise<{ entries: number; bytes: number }>;
  stop(): Promise<void>;
}

export interface Tail {
  /** where batches are kept for gateways */
  readonly kind: 'redis' | 'memory';
  /**
   * Batches after the seq `after`; waits up to `waitMs` for the first. The first may begin after a gap, or before
   * `after`. Rejects within two seconds if the fan-out does not answer.
   */
  read(after: number, waitMs: number, signal: AbortSignal): Promise<Batch[]>;
  /** Like `read` without waiting, for clients that catch up. It does not interrupt a `read` in progress. */
  history(after: number): Promise<Batch[]>;
  /** As `Publisher.size`. */
  size(): Promise<{ entries: number; bytes: number }>;
  stop(): Promise<void>;
}
