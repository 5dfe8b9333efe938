/**
 * The client on one WebSocket: its outlet, its signs of life, what it may send, and its end. `ws`
 * parses incoming bytes and sends control frames. Data frames go to the raw socket through the
 * outlet. What is spoken on the connection is in plain.ts and session.ts.
 */
import type { Socket } from 'node:net';
import type { WebSocket } from 'ws';
import { closeCodes } from '#shared/wire.ts';
import { webSocketFraming } from '../channels/framing.ts';
import type { Cursor } from '../relay/cursor.ts';
import { Outlet } from '../relay/outlet.ts';
import { addressOf, type Client, nextClientId } from './client.ts';
import type { Protocol } from './protocol.ts';

const pingFrame = Buffer.from([0x89, 0x00]);

/**
 * What a client may send, in points (PROTOCOL.md, "What a client may send"): the first number at
 * once, the second comes back each ms. A frame costs one, each kB another, and each piece in which
 * the network delivers the bytes a tenth.
 */
const maxPoints = 1_000;
const pointsPerMs = 40 / 1_000;
const framePoints = 1;
const bytePoints = 1 / 1_024;
const piecePoints = 0.1;
/**
 * The time of the event loop that its messages may take at once, in ms, and how much of it comes
 * back each ms: see inbox.ts.
 */
const maxCreditMs = 40;
const creditPerMs = 2 / 1_000;

const none: readonly never[] = [];

export class Connection implements Client {
  readonly id = nextClientId();
  readonly ws: WebSocket;
  readonly outlet: Outlet;
  readonly openedAt = performance.now();
  /** null: not chosen yet */
  protocol: Protocol | null = null;
  /** something came from the client since the last ping */
  alive = true;
  readonly #forwardedFor: string | null;
  #points = maxPoints;
  #creditMs = maxCreditMs;
  #refilledAt = this.openedAt;

  constructor(ws: WebSocket, socket: Socket, forwardedFor: string | null = null) {
    this.ws = ws;
    this.#forwardedFor = forwardedFor;
    this.outlet = new Outlet(socket, webSocketFraming, this);
  }

  get transport(): 'websocket' {
    return 'websocket';
  }

  get mode(): string {
    return this.ws.protocol || 'plain';
  }

  get address(): string {
    return addressOf(this.outlet, this.#forwardedFor);
  }

  get cursors(): readonly Cursor[] {
    return this.protocol?.cursors ?? none;
  }

  get resumes(): boolean {
    return this.protocol?.resumes ?? false;
  }

  warn(afterMs: number): void {
    this.protocol?.warn(afterMs);
  }

  dismiss(reason: string): void {
    this.close(closeCodes.restart, reason);
  }

  disconnect(): void {
    this.close(closeCodes.restart, 'an operator ended this connection, come back');
  }

  cut(): void {
    this.outlet.end();
    this.ws.terminate();
  }

  /**
   * One turn of the ping wheel. A client with nothing queued must have answered the last ping. A
   * client that reads nothing cannot see a ping behind its queued bytes, so it is measured by
   * whether it takes any of them.
   */
  check(now: number, stallTimeoutMs: number): 'ok' | 'dead' | 'stalled' {
    const stalledMs = this.outlet.stalledMs(now);
    if (this.outlet.queuedBytes > 0) return stalledMs > stallTimeoutMs ? 'stalled' : 'ok';
    if (!this.alive) return 'dead';
    this.alive = false;
    this.outlet.ping(pingFrame);
    return 'ok';
  }

  /** Counts a frame that came; false: too many. */
  countFrame(): boolean {
    return this.#spend(framePoints);
  }

  /** Counts bytes that came in one piece; false: too many. */
  countPiece(bytes: number): boolean {
    return this.#spend(piecePoints + bytes * bytePoints);
  }

  #spend(points: number): boolean {
    if (this.#points < points) this.#refill();
    if (this.#points < points) return false;
    this.#points -= points;
    return true;
  }

  /** The client's messages have not taken more of the event loop lately than one client may. */
  get hasCredit(): boolean {
    if (this.#creditMs <= 0) this.#refill();
    return this.#creditMs > 0;
  }

  /** One of the client's messages took this much of the event loop. */
  spendCredit(ms: number): void {
    this.#creditMs -= ms;
  }

  #refill(): void {
    const now = performance.now();
    const elapsed = now - this.#refilledAt;
    this.#refilledAt = now;
    this.#points = Math.min(maxPoints, this.#points + elapsed * pointsPerMs);
    this.#creditMs = Math.min(maxCreditMs, this.#creditMs + elapsed * creditPerMs);
  }

  /** Closes, and reads nothing more: a flood must not be read until the closing handshake is over. */
  refuse(code: number, reason: string): void {
    this.close(code, reason);
    this.ws.pause();
  }

  /** Sends nothing more but the closing handshake, and cuts the connection if the client does not finish that soon. */
  close(code: number, reason: string): void {
    if (!this.outlet.open) return;
    this.outlet.end();
    this.ws.close(code, closeReason(reason));
    const cut = setTimeout(() => this.ws.terminate(), 2_000);
    cut.unref();
    this.ws.once('close', () => clearTimeout(cut));
  }
}

/** At most 123 bytes. */
export function closeReason(text: string): string {
  const bytes = Buffer.from(text);
  if (bytes.length <= 123) return text;
  return `${new TextDecoder().decode(bytes.subarray(0, 120)).replace(/\uFFFD+$/, '')}…`;
}
