/** The fan-out within one process, for embedded mode. It keeps the latest batches for the gateway of this process. */

import { Bell } from '../waiting.ts';
import { type Batch, withOwnBuffer } from './batch.ts';
import type { Publisher, PublishResult, StreamHead, Tail } from './fanout.ts';

const maxBytes = 4 * 1024 * 1024;

export class LocalFanout implements Publisher, Tail {
  readonly kind = 'memory';
  readonly #bell = new Bell();
  #batches: Batch[] = [];
  #bytes = 0;
  #term = 0;
  #epoch = 0;
  #lastSeq: number | null = null;
  #stopped = false;

  async publish(batch: Batch, term: number, startsOver = false): Promise<PublishResult> {
    if (batch.epoch < this.#epoch || (batch.epoch === this.#epoch && term < this.#term)) return { status: 'deposed' };
    this.#term = term;
    if (batch.epoch !== this.#epoch || startsOver) {
      this.#epoch = batch.epoch;
      this.#batches = [];
      this.#bytes = 0;
      this.#lastSeq = null;
    }
    const last = this.#lastSeq;
    if (last !== null && batch.lastSeq <= last) return { status: 'repeated', lastSeq: last };
    if (last !== null && batch.firstSeq !== last + 1) return { status: 'gap', lastSeq: last };
    this.#lastSeq = batch.lastSeq;
    this.#batches.push(withOwnBuffer(batch));
    this.#bytes += batch.buffer.length;
    while (this.#bytes > maxBytes && this.#batches.length > 1) this.#bytes -= this.#batches.shift()!.buffer.length;
    this.#bell.ring();
    return { status: 'published' };
  }

  async lastSeq(epoch: number): Promise<number | null> {
    return epoch === this.#epoch ? this.#lastSeq : null;
  }

  async head(): Promise<StreamHead | null> {
    return this.#lastSeq === null ? null : { epoch: this.#epoch, term: this.#term, lastSeq: this.#lastSeq };
  }

  async size(): Promise<{ entries: number; bytes: number }> {
    return { entries: this.#batches.length, bytes: this.#bytes };
  }

  async read(after: number, waitMs: number, signal: AbortSignal): Promise<Batch[]> {
    const deadline = performance.now() + waitMs;
    for (;;) {
      const found = this.#batches.filter((batch) => batch.lastSeq > after);
      const left = deadline - performance.now();
      if (found.length > 0 || left <= 0 || signal.aborted || this.#stopped) return found;
      await this.#bell.wait(left, signal);
    }
  }

  async history(after: number): Promise<Batch[]> {
    return this.#batches.filter((batch) => batch.lastSeq > after);
  }

  async stop(): Promise<void> {
    this.#stopped = true;
    this.#bell.ring();
  }
}
