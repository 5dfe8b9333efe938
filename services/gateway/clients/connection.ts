/**
 * The client on one WebSocket: its outlet, its signs of life, and its end. `ws`
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
import { MessageLimits } from './message-limits.ts';
import type { Protocol } from './protocol.ts';

const pingFrame = Buffer.from([0x89, 0x00]);

const none: readonly never[] = [];

export class Connection extends MessageLimits implements Client {
  readonly id = nextClientId();
  readonly ws: WebSocket;
  readonly outlet: Outlet;
  readonly openedAt = performance.now();
  /** null: not chosen yet */
  protocol: Protocol | null = null;
  /** something came from the client since the last ping */
  alive = true;
  readonly #forwardedFor: string | null;

  constructor(ws: WebSocket, socket: Socket, forwardedFor: string | null = null) {
    super();
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
