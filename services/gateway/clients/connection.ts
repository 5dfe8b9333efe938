/**
 * One WebSocket: its outlet, its life signs, its end. `ws` parses what comes in and sends control frames; data frames are
 * written to the raw socket through the outlet. What is said on it is session.ts's or plain.ts's.
 */
import type { IncomingMessage } from 'node:http';
import type { Socket } from 'node:net';
import type { WebSocket } from 'ws';
import { closeCodes } from '#shared/wire.ts';
import { webSocketFraming } from '../channels/framing.ts';
import { Outlet } from '../relay/outlet.ts';

const pingFrame = Buffer.from([0x89, 0x00]);

/** A client of this replica, over whatever transport, as operators see it. */
export interface Peer {
  /** counts up within this run of the process */
  readonly id: number;
  /** as the proxy in front tells it, else the socket's own */
  readonly address: string;
  readonly mode: string;
  readonly outlet: Outlet;
  /** Ends it; it may come back. */
  disconnect(): void;
}

/**
 * What a connection may say, in points (PROTOCOL.md, "What a client may send"): so many at once, and so many a second later. A frame
 * costs one, each kB of what comes another, and each piece in which the network delivers it a tenth.
 */
const maxPoints = 1_000;
const pointsPerMs = 40 / 1_000;
const framePoints = 1;
const bytePoints = 1 / 1_024;
const piecePoints = 0.1;
/** The time of the event loop that its messages may take at once, in ms, and what of it comes back: see inbox.ts. */
const maxCreditMs = 40;
const creditPerMs = 2 / 1_000;

let lastId = 0;

export const nextPeerId = (): number => ++lastId;

/** Where a proxy in front saw the client: it adds that as the last of X-Forwarded-For. Null: it told nothing. */
export function forwardedFor({ headers }: IncomingMessage): string | null {
  const forwarded = headers['x-forwarded-for'];
  const last = typeof forwarded === 'string' ? forwarded.split(',').at(-1)!.trim() : '';
  return last === '' ? null : last.slice(0, 45);
}

/** Where a client is. */
export function addressOf(outlet: Outlet, forwardedFor: string | null): string {
  // IPv4 within IPv6
  return (forwardedFor ?? outlet.remoteAddress).replace(/^::ffff:/, '');
}

export class Connection implements Peer {
  readonly id = nextPeerId();
  readonly ws: WebSocket;
  readonly outlet: Outlet;
  /** of performance.now() */
  readonly openedAt = performance.now();
  /** something came from the other side since the last ping */
  alive = true;
  readonly #forwardedFor: string | null;
  #points = maxPoints;
  #creditMs = maxCreditMs;
  #refilledAt = this.openedAt;

  constructor(ws: WebSocket, socket: Socket, forwardedFor: string | null = null) {
    this.ws = ws;
    this.#forwardedFor = forwardedFor;
    this.outlet = new Outlet(socket, webSocketFraming);
  }

  get address(): string {
    return addressOf(this.outlet, this.#forwardedFor);
  }

  get mode(): string {
    return this.ws.protocol || 'plain';
  }

  disconnect(): void {
    this.close(closeCodes.restart, 'an operator ended this connection, come back');
  }

  /**
   * One turn of the ping wheel. A peer that has nothing unsent must have answered the last ping. One that reads nothing
   * cannot see a ping behind its backlog, so it is measured by whether it takes any bytes.
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

  /** It has not used more of the event loop lately than one client may. */
  get hasCredit(): boolean {
    if (this.#creditMs <= 0) this.#refill();
    return this.#creditMs > 0;
  }

  /** Its message took so much of the event loop. */
  took(ms: number): void {
    this.#creditMs -= ms;
  }

  #refill(): void {
    const now = performance.now();
    const elapsed = now - this.#refilledAt;
    this.#refilledAt = now;
    this.#points = Math.min(maxPoints, this.#points + elapsed * pointsPerMs);
    this.#creditMs = Math.min(maxCreditMs, this.#creditMs + elapsed * creditPerMs);
  }

  /** Says why, and reads nothing more: what floods is not to be read until it has closed in turn. */
  refuse(code: number, reason: string): void {
    this.close(code, reason);
    this.ws.pause();
  }

  /** Sends nothing more but the closing handshake, and cuts the connection if the peer does not finish it soon. */
  close(code: number, reason: string): void {
    if (!this.outlet.open) return;
    this.outlet.end();
    this.ws.close(code, closeReason(reason));
    const cut = setTimeout(() => this.ws.terminate(), 2_000);
    cut.unref();
    this.ws.once('close', () => clearTimeout(cut));
  }

  terminate(): void {
    this.outlet.end();
    this.ws.terminate();
  }
}

/** At most 123 bytes. */
export function closeReason(text: string): string {
  const bytes = Buffer.from(text);
  if (bytes.length <= 123) return text;
  return `${new TextDecoder().decode(bytes.subarray(0, 120)).replace(/\uFFFD+$/, '')}…`;
}
