/**
 * How batches get from the listener to the gateways. Never the truth: whatever this loses, delays or refuses is in
 * plank.log, and both sides know how to read it there. Two implementations, one contract suite.
 */
import type { Batch } from './batch.ts';

export type PublishResult =
  | { status: 'published' }
  /** it was there already: refused as a repeat */
  | { status: 'repeated'; lastSeq: number }
  /** something is missing before it: publish from lastSeq + 1 */
  | { status: 'gap'; lastSeq: number }
  /** a later term has published: this listener leads no more */
  | { status: 'deposed' };

export interface StreamHead {
  epoch: number;
  term: number;
  lastSeq: number;
}

export interface Publisher {
  /**
   * Rejects when the other side does not answer; the batch may have been taken all the same. `anew`: whatever is there goes, as
   * what is missing before this batch is nowhere any more.
   */
  publish(batch: Batch, term: number, anew?: boolean): Promise<PublishResult>;
  /** The last seq that is there, null where there is nothing of this epoch. */
  lastSeq(epoch: number): Promise<number | null>;
  /** What was published last, of whatever epoch; null where nothing is known. */
  head(): Promise<StreamHead | null>;
  /** How much is there: batches, and about how much memory they take. Rejects when the other side does not answer. */
  size(): Promise<{ entries: number; bytes: number }>;
  stop(): Promise<void>;
}

export interface Tail {
  /** where batches are kept for gateways */
  readonly kind: 'redis' | 'memory';
  /**
   * Batches behind the seq `after`, waiting up to `waitMs` for the first. The first may begin behind a gap, or before
   * `after`. Rejects within two seconds when the other side does not answer.
   */
  read(after: number, waitMs: number, signal: AbortSignal): Promise<Batch[]>;
  /** Like `read` without waiting, for clients that catch up: does not disturb a `read` in progress. */
  history(after: number): Promise<Batch[]>;
  /** As a publisher's. */
  size(): Promise<{ entries: number; bytes: number }>;
  stop(): Promise<void>;
}
