/**
 * Where a client's bytes go: the client's raw socket. Frames are written in one piece. Before a
 * cursor writes more, it checks how many bytes the kernel has not taken yet.
 */
import type { Socket } from 'node:net';
import type { Framing } from '../channels/framing.ts';

const nothing = Buffer.alloc(0);

/** The client that owns an outlet, as far as the hub needs it. */
interface Owner {
  /** all cursors that write to the outlet */
  readonly cursors: Iterable<{ fallBehind(): void }>;
}

export class Outlet {
  readonly framing: Framing;
  /** something other than a ping was written */
  used = false;
  readonly #socket: Socket;
  readonly #owner: Owner;
  #ended = false;
  #lastTakenBytes = 0;
  #stalledSince: number | null = null;
  /** callbacks that end the waits in `drained` when the socket closes; null: nobody has waited yet */
  #waits: Set<() => void> | null = null;

  constructor(socket: Socket, framing: Framing, owner: Owner) {
    this.#socket = socket;
    this.framing = framing;
    this.#owner = owner;
  }

  /** The client's address; empty: the socket is gone. Read only on demand, as a socket keeps the text in memory. */
  get remoteAddress(): string {
    return this.#socket.remoteAddress ?? '';
  }

  /** False after `end`, and when the socket is gone. */
  get open(): boolean {
    return !this.#ended && !this.#socket.destroyed;
  }

  /**
   * Makes every later write do nothing. The transport itself closes the socket. The cursors stay
   * until their owner ends them.
   */
  end(): void {
    this.#ended = true;
  }

  /** True: fewer bytes than the stream's high-water mark are queued, so the caller need not read `queuedBytes`. */
  write(buffer: Buffer): boolean {
    if (this.#ended || buffer.length === 0) return true;
    this.used = true;
    return this.#socket.write(buffer);
  }

  ping(frame: Buffer): void {
    if (!this.#ended) this.#socket.write(frame);
  }

  /** Called when too many bytes are queued: every live cursor of the client then reads on at the client's pace. */
  fallBehind(): void {
    for (const cursor of this.#owner.cursors) cursor.fallBehind();
  }

  /** bytes that the kernel has not taken yet */
  get queuedBytes(): number {
    return this.#socket.writableLength;
  }

  /** bytes that the kernel has taken, ever */
  get takenBytes(): number {
    return this.#socket.bytesWritten - this.#socket.writableLength;
  }

  /** For how long, in ms, bytes were queued and the kernel took none. Compares with the previous call only. */
  stalledMs(now: number): number {
    const taken = this.takenBytes;
    if (this.queuedBytes === 0) this.#stalledSince = null;
    else if (taken !== this.#lastTakenBytes || this.#stalledSince === null) this.#stalledSince = now;
    this.#lastTakenBytes = taken;
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
      // the event 'drain' would not do: it never comes if less is queued than the stream's high-water mark
      socket.write(nothing, done);
    });
  }
}

/** Calls every function in the returned set when the socket closes. One listener serves all waiting cursors. */
function waitsFor(socket: Socket): Set<() => void> {
  const waits = new Set<() => void>();
  socket.once('close', () => {
    for (const done of waits) done();
  });
  return waits;
}
