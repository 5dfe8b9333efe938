/**
 * Changes as an async iterator, for a consumer that may be slower than the changes. What must stay true:
 *
 * - At most `bufferSize` changes wait, so memory stays bounded. At that bound the iterator unsubscribes. When half of
 *   the changes are consumed, it subscribes again after the last change that it received.
 * - Changes are lost only if the consumer falls behind by more than the log's retention. Then the iteration ends with
 *   RESYNC.
 * - `position()` never passes a change that the consumer still works on. A change counts as handled when the consumer
 *   requests the next change.
 */
import type { ChangeFrame, ResyncReason } from '../shared/wire.ts';
import type { Delivery } from './state/delivery.ts';
import { PlankError } from './values/plank-error.ts';

/** Subscribes to the changes after `from` (null: from now on). Returns a function that unsubscribes. */
export type Attach = (from: string | null, receive: (delivery: Delivery) => void) => () => void;

interface Options {
  from: string | null;
  bufferSize: number;
  signal?: AbortSignal | undefined;
}

type Waiting = { resolve: (result: IteratorResult<ChangeFrame, undefined>) => void; reject: (error: Error) => void };

const done = { done: true as const, value: undefined };

export class ChangeIterator implements AsyncIterableIterator<ChangeFrame, undefined> {
  readonly #attach: Attach;
  readonly #size: number;
  #buffer: ChangeFrame[] = [];
  /** calls of `next` that wait for a change */
  #waiting: Waiting[] = [];
  /** the position up to which all changes were received */
  #received: string | null;
  /** the position of the change that the consumer works on */
  #current: string | null = null;
  /** the position up to which all changes were handled */
  #handled: string | null;
  /** unsubscribes; null if the iterator is paused or has ended */
  #detach: (() => void) | null = null;
  #end: { error?: Error } | null = null;
  /**
   * ends the iteration. An application may use one signal for many iterators, so this iterator removes its listener
   * from the signal when the iteration ends.
   */
  readonly #signal: AbortSignal | undefined;
  readonly #abort = () => void this.return();

  constructor(attach: Attach, { from, bufferSize, signal }: Options) {
    this.#attach = attach;
    this.#size = bufferSize;
    this.#received = from;
    this.#handled = from;
    this.#signal = signal;
    if (signal?.aborted) this.#finish({});
    else this.#resume();
    if (!this.#end) signal?.addEventListener('abort', this.#abort);
  }

  [Symbol.asyncIterator](): this {
    return this;
  }

  position(): string | null {
    return this.#waiting.length > 0 ? this.#received : this.#handled;
  }

  next(): Promise<IteratorResult<ChangeFrame, undefined>> {
    this.#handled = this.#current ?? this.#handled;
    const value = this.#buffer.shift();
    if (value) {
      this.#current = value.pos;
      if (!this.#end && !this.#detach && this.#buffer.length <= this.#size / 2) this.#resume();
      return Promise.resolve({ done: false, value });
    }
    if (!this.#end) return new Promise((resolve, reject) => this.#waiting.push({ resolve, reject }));
    const { error } = this.#end;
    this.#end = {}; // an error is thrown once
    return error ? Promise.reject(error) : Promise.resolve(done);
  }

  return(): Promise<IteratorResult<ChangeFrame, undefined>> {
    this.#buffer = [];
    this.#finish({});
    this.#end = {};
    return Promise.resolve(done);
  }

  #resume(): void {
    this.#detach = this.#attach(this.#received, (delivery) => this.#receive(delivery));
    if (this.#end) this.#pause(); // the subscription was refused within `attach`
  }

  #pause(): void {
    this.#detach?.();
    this.#detach = null;
  }

  #receive(delivery: Delivery): void {
    if (delivery.kind === 'position') this.#received = delivery.pos;
    else if (delivery.kind === 'change') this.#push(delivery.change);
    else if (delivery.kind === 'error') this.#finish({ error: new PlankError(delivery.code, delivery.message) });
    else if (delivery.kind === 'resync') this.#finish({ error: resyncError(delivery.reason) });
    else if (delivery.kind === 'state' && delivery.state === 'ended') this.#finish({});
  }

  #push(change: ChangeFrame): void {
    const before = this.#received;
    this.#received = change.pos;
    const waiting = this.#waiting.shift();
    if (waiting) {
      this.#handled = before;
      this.#current = change.pos;
      return waiting.resolve({ done: false, value: change });
    }
    this.#buffer.push(change);
    if (this.#buffer.length >= this.#size) this.#pause();
  }

  /** Ends the iteration. The consumer still gets the changes in the buffer, and then the error. */
  #finish(end: { error?: Error }): void {
    if (this.#end) return;
    this.#pause();
    this.#signal?.removeEventListener('abort', this.#abort);
    const [first, ...rest] = this.#waiting;
    this.#waiting = [];
    this.#end = first ? {} : end;
    if (end.error) first?.reject(end.error);
    else first?.resolve(done);
    for (const { resolve } of rest) resolve(done);
  }
}

function resyncError(reason: ResyncReason): PlankError {
  const todo = 'read the rows again, and begin without a position';
  return new PlankError('RESYNC', `changes are missing (${reason}): ${todo}`);
}
