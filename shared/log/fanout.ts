/**
 * The fan-out takes batches from the listener to the gateways. The truth is plank.log: if the fan-out
 * loses, delays or refuses changes, both sides can read them in the log. There are two implementations, and
 * one test suite for both.
 */
import type { Batch } from './batch.ts';

export type PublishResult =
  | { status: 'published' }
  /** the fan-out has the batch already and refused the repeat */
  | { status: 'repeated'; lastSeq: number }
  /** the fan-out lacks changes before the batch: publish from lastSeq + 1 */
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
   * Publishes a batch. Rejects if the fan-out does not answer; the fan-out may have taken the batch anyway.
   * `startsOver` first discards all that the fan-out has. It is for the case that the changes before the
   * batch are missing in the fan-out and exist nowhere else.
   */
  publish(batch: Batch, term: number, startsOver?: boolean): Promise<PublishResult>;
  /** The last seq in the fan-out; null if it has nothing of this epoch. */
  lastSeq(epoch: number): Promise<number | null>;
  /**
   * The epoch, term and last seq of the batch that was published last, whatever its epoch; null if they are
   * not known.
   */
  head(): Promise<StreamHead | null>;
  /**
   * The number of batches in the fan-out, and about how much memory they take. Rejects if the fan-out does
   * not answer.
   */
  size(): Promise<{ entries: number; bytes: number }>;
  stop(): Promise<void>;
}

export interface Tail {
  /** where batches are kept for gateways */
  readonly kind: 'redis' | 'memory';
  /**
   * Resolves with batches that end after the seq `after`; if there are none, waits up to `waitMs` for one.
   * The first batch may begin before `after`, or after a gap. If the fan-out does not answer, rejects at
   * the latest half a second after `waitMs`.
   */
  read(after: number, waitMs: number, signal: AbortSignal): Promise<Batch[]>;
  /** Like `read`, but does not wait, for clients that catch up. It does not disturb a `read` in progress. */
  history(after: number): Promise<Batch[]>;
  /** As `Publisher.size`. */
  size(): Promise<{ entries: number; bytes: number }>;
  stop(): Promise<void>;
}
