/**
 * The fan-out takes batches from the listener to the gateways. The truth is plank.log: if the fan-out loses, delays or
 * refuses changes, listener and gateways can read these changes in the log. The fan-out has two implementations, and
 * one test suite tests both.
 */
import type { Batch } from './batch.ts';

export type PublishResult =
  | { status: 'published' }
  /** the fan-out has the batch already and refused the repeat */
  | { status: 'repeated'; lastSeq: number }
  /** the fan-out lacks changes before the batch; the listener must publish from lastSeq + 1 */
  | { status: 'gap'; lastSeq: number }
  /** a listener with a later term has published, so this listener no longer leads */
  | { status: 'deposed' };

export interface StreamHead {
  epoch: number;
  term: number;
  lastSeq: number;
}

export interface Publisher {
  /**
   * Publishes a batch. If the fan-out does not answer, rejects; the fan-out may have taken the batch anyway. With
   * `startsOver`, the fan-out first discards everything that it has. `startsOver` is for changes before the batch that
   * are missing in the fan-out and exist nowhere else.
   */
  publish(batch: Batch, term: number, startsOver?: boolean): Promise<PublishResult>;
  /** The last seq in the fan-out; null if the fan-out has nothing of this epoch. */
  lastSeq(epoch: number): Promise<number | null>;
  /**
   * The epoch, term and last seq of the batch that was published last. The batch may be of any epoch. Null if the
   * fan-out has no record of a batch.
   */
  head(): Promise<StreamHead | null>;
  /**
   * The number of batches in the fan-out, and about how many bytes of memory the batches take. If the fan-out does not
   * answer, rejects.
   */
  size(): Promise<{ entries: number; bytes: number }>;
  stop(): Promise<void>;
}

export interface Tail {
  /** where this implementation keeps batches for gateways */
  readonly kind: 'redis' | 'memory';
  /**
   * Resolves with batches that end after the seq `after`. If there are none, waits up to `waitMs` for one. The first
   * batch may begin before `after`, or after a gap. If the fan-out does not answer, rejects at most half a second after
   * `waitMs`.
   */
  read(after: number, waitMs: number, signal: AbortSignal): Promise<Batch[]>;
  /**
   * Like `read`, but does not wait, because it serves clients that catch up. It does not disturb a `read` in progress.
   */
  history(after: number): Promise<Batch[]>;
  /** Like `Publisher.size`. */
  size(): Promise<{ entries: number; bytes: number }>;
  stop(): Promise<void>;
}
