/**
 * Where a client's bytes go: its raw socket, with the subscriptions that write to it. Frames are written in one piece; what
 * the kernel has not taken yet is what a subscription looks at before it writes more.
 */
import type { Socket } from 'node:net';
import type { Framing } from '../channels/framing.ts';
import type { Subscription } from './cursor.ts';

const nothing = Buffer.alloc(0);
const none: readonly never[] = [];

export class Outlet {
  readonly framing: Framing;
  /** a list made anew each time, see session.ts; whoever walks it may change it */
  subscriptions: readonly Subscription[] = none;
  /** something other than a ping was written */
  used = false;
  readonly #socket: Socket;
  #ended = false;
  #takenThen = 0;
  #stalledSince: number | null = null;
  /** who waits until it has drained; null: nobody ever has */
  #waits: Set<() => void> | null = null;

  constructor(socket: Socket, framing: Framing) {
    this.#socket = socket;
    this.framing = framing;
  }

  add(subscription: Subscription): void {
    this.subscriptions = this.subscriptions.concat(subscription);
  }

  remove(subscription: Subscription): void {
    this.subscriptions = this.subscriptions.filter((other) => other !== subscription);
  }

  /** Of the other end, empty when the socket is gone. To be asked for when it is wanted: a socket keeps what it has found. */
  get remoteAddress(): string {
    return this.#socket.remoteAddress ?? '';
  }

  /** False from `end` on, and when the socket is gone. */
  get open(): boolean {
    return !this.#ended && !this.#socket.destroyed;
  }

  /** Nothing is written from now on: the transport says goodbye in its own way. Its subscriptions stay to be left. */
  end(): void {
    this.#ended = true;
  }

  /** True: fewer bytes than the stream's high-water mark are queued, `queuedBytes` need not be asked. */
  write(buffer: Buffer): boolean {
    if (this.#ended || buffer.length === 0) return true;
    this.used = true;
    return this.#socket.write(buffer);
  }

  ping(frame: Buffer): void {
    if (!this.#ended) this.#socket.write(frame);
  }

  /** bytes that the kernel has not taken yet */
  get queuedBytes(): number {
    return this.#socket.writableLength;
  }

  /** bytes that the kernel has taken, ever */
  get takenBytes(): number {
    return this.#socket.bytesWritten - this.#socket.writableLength;
  }

  /** For how long, of the times that this was asked, bytes have been queued and the kernel took none, in ms. */
  stalledMs(now: number): number {
    const taken = this.takenBytes;
    if (this.queuedBytes === 0) this.#stalledSince = null;
    else if (taken !== this.#takenThen || this.#stalledSince === null) this.#stalledSince = now;
    this.#takenThen = taken;
    return this.#stalledSince === null ? 0 : now - this.#stalledSince;
  }

  /** Resolves when everything queued so far has been taken, or the socket has closed. */
  drained(): Promise<void> {
    const socket = this.#socket;
    if (socket.writableLength === 0 || socket.destroyed) return Promise.resolve();
    const waits = (this.#waits ??= waitsFor(socket));
    return new Promise((resolve) => {
      const done = () => {
        waits.delete(done);
        resolve();
      };
      waits.add(done);
      // not 'drain', which never comes where less is queued than the stream's high-water mark
      socket.write(nothing, done);
    });
  }
}

/** All that is in it when the socket closes is called then: one listener, however many subscriptions wait. */
function waitsFor(socket: Socket): Set<() => void> {
  const waits = new Set<() => void>();
  socket.once('close', () => {
    for (const done of waits) done();
  });
  return waits;
}
