/**
 * Changes as an async iterator, for a consumer that takes its time. What must stay true: at most `bufferSize` changes wait. At the
 * bound the subscription is given up, and asked for again from the last change that was taken in when half of them are consumed:
 * no memory fills, and nothing is lost unless the consumer is slower than the log's retention, which ends it with RESYNC.
 * `position()` never passes a change that the consumer still has in hand: it is done with one when it asks for the next.
 */
import type { ChangeFrame } from '../shared/wire.ts';
import type { Delivery } from './state/stream.ts';

export class PlankError extends Error {
  override readonly name = 'PlankError';
  /** one of the protocol's, or UNREACHABLE (no connection yet, or none any more; it is tried on), RESYNC (there is a gap), CLOSED (the connection is, for good) */
  readonly code: string;

  constructor(code: string, message: string) {
    super(message);
    this.code = code;
  }
}

/** Subscribes from `from` on; the answer unsubscribes. */
export type Attach = (from: string | null, take: (delivery: Delivery) => void) => () => void;

interface Options {
  from: string | null;
  bufferSize: number;
  signal?: AbortSignal | undefined;
}

type Waiting = { resolve: (result: IteratorResult<ChangeFrame, undefined>) => void; reject: (error: Error) => void };

const over = { done: true as const, value: undefined };

export class ChangeIterator implements AsyncIterableIterator<ChangeFrame, undefined> {
  readonly #attach: Attach;
  readonly #size: number;
  #buffer: ChangeFrame[] = [];
  #waiting: Waiting[] = [];
  /** everything up to here was taken in */
  #position: string | null;
  /** the change that the consumer has in hand */
  #inHand: string | null = null;
  #handled: string | null;
  /** null: paused, or over */
  #detach: (() => void) | null = null;
  #end: { error?: Error } | null = null;
  /** ends it; one signal may be that of many, so it is let go of at the end */
  readonly #signal: AbortSignal | undefined;
  readonly #stop = () => void this.return();

  constructor(attach: Attach, { from, bufferSize, signal }: Options) {
    this.#attach = attach;
    this.#size = bufferSize;
    this.#position = from;
    this.#handled = from;
    this.#signal = signal;
    if (signal?.aborted) this.#finish({});
    else this.#resume();
    if (!this.#end) signal?.addEventListener('abort', this.#stop);
  }

  [Symbol.asyncIterator](): this {
    return this;
  }

  /** Everything up to here is handled; null: there is no position yet. */
  position(): string | null {
    return this.#waiting.length > 0 ? this.#position : this.#handled;
  }

  next(): Promise<IteratorResult<ChangeFrame, undefined>> {
    this.#handled = this.#inHand ?? this.#handled;
    const value = this.#buffer.shift();
    if (value) {
      this.#inHand = value.pos;
      if (!this.#end && !this.#detach && this.#buffer.length <= this.#size / 2) this.#resume();
      return Promise.resolve({ done: false, value });
    }
    if (!this.#end) return new Promise((resolve, reject) => this.#waiting.push({ resolve, reject }));
    const { error } = this.#end;
    this.#end = {};
    return error ? Promise.reject(error) : Promise.resolve(over);
  }

  return(): Promise<IteratorResult<ChangeFrame, undefined>> {
    this.#buffer = [];
    this.#finish({});
    this.#end = {};
    return Promise.resolve(over);
  }

  #resume(): void {
    this.#detach = this.#attach(this.#position, (delivery) => this.#take(delivery));
    if (this.#end) this.#pause(); // refused on the spot
  }

  #pause(): void {
    this.#detach?.();
    this.#detach = null;
  }

  #take(delivery: Delivery): void {
    if (delivery.kind === 'position') this.#position = delivery.pos;
    else if (delivery.kind === 'change') this.#push(delivery.change);
    else if (delivery.kind === 'error') this.#finish({ error: new PlankError(delivery.code, delivery.message) });
    else if (delivery.kind === 'resync')
      this.#finish({
        error: new PlankError('RESYNC', `changes are missing here (${delivery.reason}): read the rows anew`),
      });
    else if (delivery.kind === 'state' && delivery.state === 'ended') this.#finish({});
  }

  #push(change: ChangeFrame): void {
    const before = this.#position;
    this.#position = change.pos;
    const waiting = this.#waiting.shift();
    if (waiting) {
      this.#handled = before;
      this.#inHand = change.pos;
      return waiting.resolve({ done: false, value: change });
    }
    this.#buffer.push(change);
    if (this.#buffer.length >= this.#size) this.#pause();
  }

  #finish(end: { error?: Error }): void {
    if (this.#end) return;
    this.#pause();
    this.#signal?.removeEventListener('abort', this.#stop);
    const [first, ...rest] = this.#waiting;
    this.#waiting = [];
    this.#end = first ? {} : end;
    if (end.error) first?.reject(end.error);
    else first?.resolve(over);
    for (const { resolve } of rest) resolve(over);
  }
}
