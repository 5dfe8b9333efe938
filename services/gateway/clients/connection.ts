/**
 * The client on one WebSocket: its outlet, whether it is alive, and its end. `ws` parses incoming
 * bytes and sends control frames. Data frames go to the raw socket through the outlet. The protocols
 * on the connection are in plain.ts and session.ts.
 */
import type { Socket } from 'node:net';
import type { WebSocket } from 'ws';
import { closeCodes } from '#shared/wire.ts';
import type { Access } from '../access/access.ts';
import type { Expiring } from '../access/expiries.ts';
import type { Identity, Viewer } from '../access/viewer.ts';
import { webSocketFraming } from '../channels/framing.ts';
import type { Cursor } from '../relay/cursor.ts';
import { Outlet } from '../relay/outlet.ts';
import { addressOf, type Client, nextClientId } from './client.ts';
import { Credentials } from './credentials.ts';
import { MessageLimits } from './message-limits.ts';
import type { Protocol } from './protocol.ts';

const pingFrame = Buffer.from([0x89, 0x00]);

const none: readonly never[] = [];

/** With AUTH=jwt: who was admitted. */
export interface Admitted {
  access: Access;
  /** null: the upgrade brought no token */
  identity: Identity | null;
}

export class Connection extends MessageLimits implements Client, Expiring {
  readonly id = nextClientId();
  readonly ws: WebSocket;
  readonly outlet: Outlet;
  readonly openedAt = performance.now();
  /** null: not chosen yet, or the request for a protocol was refused */
  protocol: Protocol | null = null;
  /** whether a frame came from the client since the last ping */
  alive = true;
  /** null: AUTH=off, or an operator's connection */
  readonly credentials: Credentials | null;
  /** one of its messages is still being handled: those that follow wait */
  isBusy = false;
  readonly #forwardedFor: string | null;

  constructor(ws: WebSocket, socket: Socket, forwardedFor: string | null = null, admitted: Admitted | null = null) {
    super();
    this.ws = ws;
    this.#forwardedFor = forwardedFor;
    this.outlet = new Outlet(socket, webSocketFraming, this);
    this.credentials = admitted && new Credentials(this, admitted.access, admitted.identity);
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

  get viewer(): Viewer | null {
    return this.credentials && this.credentials.viewer;
  }

  get expiresAt(): number | null {
    return this.credentials && this.credentials.expiresAt;
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

  expire(why: 'expired' | 'revoked'): void {
    this.close(closeCodes.unauthorized, why === 'expired' ? 'the token has expired' : 'the token was revoked');
  }

  cut(): void {
    this.outlet.end();
    this.ws.terminate();
  }

  /**
   * Called on each turn of the ping wheel. If no bytes are queued, a client that has not answered
   * the last ping is dead. If bytes are queued, the client cannot see a ping behind these bytes:
   * the client is stalled if it has taken none of them for longer than `stallTimeoutMs`.
   */
  check(now: number, stallTimeoutMs: number): 'ok' | 'dead' | 'stalled' {
    const stalledMs = this.outlet.stalledMs(now);
    if (this.outlet.queuedBytes > 0) return stalledMs > stallTimeoutMs ? 'stalled' : 'ok';
    if (!this.alive) return 'dead';
    this.alive = false;
    this.outlet.ping(pingFrame);
    return 'ok';
  }

  /** Closes the connection and stops reading at once, so that a flood is not read during the closing handshake. */
  refuse(code: number, reason: string): void {
    this.close(code, reason);
    this.ws.pause();
  }

  /** Starts the closing handshake and sends nothing else. Cuts the connection if the client has not closed in 2 s. */
  close(code: number, reason: string): void {
    if (!this.outlet.open) return;
    this.outlet.end();
    this.ws.close(code, closeReason(reason));
    const cut = setTimeout(() => this.ws.terminate(), 2_000);
    cut.unref();
    this.ws.once('close', () => clearTimeout(cut));
  }
}

/** The text, cut to the 123 bytes that a close frame can carry. */
export function closeReason(text: string): string {
  const bytes = Buffer.from(text);
  if (bytes.length <= 123) return text;
  return `${new TextDecoder().decode(bytes.subarray(0, 120)).replace(/\uFFFD+$/, '')}…`;
}
