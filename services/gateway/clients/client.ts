/** A client of this replica over any transport, as the registry, balance/ and ops/ see it. */
import type { Viewer } from '../access/viewer.ts';
import type { Cursor } from '../relay/cursor.ts';
import type { Outlet } from '../relay/outlet.ts';

export interface Client {
  /** counts up from 1 in each run of the process */
  readonly id: number;
  readonly transport: 'websocket' | 'sse';
  /** the protocol: `plain`, `plank.v1` or `events` */
  readonly mode: string;
  /** the address that the proxy in front reports; without a proxy, the socket's own */
  readonly address: string;
  /** when the client connected, on the clock of performance.now() */
  readonly openedAt: number;
  readonly outlet: Outlet;
  /** whose rights apply; null: AUTH=off, or an operator's connection */
  readonly viewer: Viewer | null;
  /** when the token expires, in seconds since 1970; null: there is no token */
  readonly expiresAt: number | null;
  readonly cursors: readonly Cursor[];
  /** true: the client has a position to resume from, so changes committed while it reconnects reach it afterwards */
  readonly resumes: boolean;
  /** Announces to the client that this replica will close it after this time. */
  warn(afterMs: number): void;
  /** Closes the client. The client comes back, to the replica that the balancer chooses. */
  dismiss(reason: string): void;
  /** Closes the client on behalf of an operator. The client may come back. */
  disconnect(): void;
  /** Ends the connection at once, without a closing handshake or a last event. */
  cut(): void;
}

let lastId = 0;

export const nextClientId = (): number => ++lastId;

export function addressOf(outlet: Outlet, forwardedFor: string | null): string {
  // an IPv4 address may come in IPv6 form: ::ffff:192.0.2.1
  return (forwardedFor ?? outlet.remoteAddress).replace(/^::ffff:/, '');
}
