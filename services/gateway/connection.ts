/**
 * One WebSocket connection, a cursor into the log.
 *
 *   live         a member of its channel: gets each batch as it comes.
 *   catching-up  behind: reads on from its cursor at its own pace, from the ring or history, and goes live where it meets
 *                the hub's seq. A new connection that resumes starts here; a live one comes here when its socket holds
 *                more unsent bytes than the bound, and its memory stops growing.
 *   closed       for good.
 *
 * Frames are written to the raw socket in one piece; `ws` parses what comes in and sends control frames.
 */
import type { Socket } from 'node:net';
import type { WebSocket } from 'ws';
import type { Channel, Member } from './channel.ts';

const pingFrame = Buffer.from([0x89, 0x00]);
const nothing = Buffer.alloc(0);

export class Connection implements Member {
  slot = -1;
  channel: Channel<Connection>;
  state: 'live' | 'catching-up' | 'closed' = 'catching-up';
  /** the last seq that was written; kept only while catching up */
  cursor = 0;
  /** something came from the other side since the last ping */
  alive = true;
  readonly ws: WebSocket;
  readonly #socket: Socket;
  #bytesSeen = 0;
  #stalledSince = 0;
  #messages = 0;

  constructor(ws: WebSocket, socket: Socket, channel: Channel<Connection>) {
    this.ws = ws;
    this.#socket = socket;
    this.channel = channel;
  }

  write(buffer: Buffer): void {
    this.#socket.write(buffer);
  }

  get isCatchingUp(): boolean {
    return this.state === 'catching-up' && !this.#socket.destroyed;
  }

  /** bytes that the kernel has not taken yet */
  get queuedBytes(): number {
    return this.#socket.writableLength;
  }

  /** Resolves when everything queued so far has been taken, or the socket has closed. */
  drained(): Promise<void> {
    const socket = this.#socket;
    if (socket.writableLength === 0 || socket.destroyed) return Promise.resolve();
    return new Promise((resolve) => {
      const done = () => {
        socket.off('close', done);
        resolve();
      };
      socket.on('close', done);
      // not 'drain', which never comes where less is queued than the stream's high-water mark
      socket.write(nothing, done);
    });
  }

  /**
   * One turn of the ping wheel. A peer that has nothing unsent must have answered the last ping. One that reads nothing
   * cannot see a ping behind its backlog, so it is measured by whether it takes any bytes.
   */
  check(now: number, stallTimeoutMs: number): 'ok' | 'dead' | 'stalled' {
    this.#messages = 0;
    if (this.queuedBytes > 0) {
      const written = this.#socket.bytesWritten - this.#socket.writableLength;
      if (written !== this.#bytesSeen || this.#stalledSince === 0) {
        this.#bytesSeen = written;
        this.#stalledSince = now;
      }
      return now - this.#stalledSince > stallTimeoutMs ? 'stalled' : 'ok';
    }
    this.#stalledSince = 0;
    if (!this.alive) return 'dead';
    this.alive = false;
    this.write(pingFrame);
    return 'ok';
  }

  /** Counts an incoming message; false: too many since the last ping. */
  allowMessage(limit: number): boolean {
    return ++this.#messages <= limit;
  }

  /** Sends nothing more but the closing handshake, and cuts the connection if the peer does not finish it soon. */
  close(code: number, reason: string): void {
    if (this.state === 'closed') return;
    this.state = 'closed';
    this.channel.remove(this);
    this.ws.close(code, reason);
    const cut = setTimeout(() => this.ws.terminate(), 2_000);
    cut.unref();
    this.ws.once('close', () => clearTimeout(cut));
  }

  terminate(): void {
    this.ws.terminate();
  }
}
