/** A client of this replica over any transport, as the registry, balance/ and ops/ see it. */
import type { IncomingMessage } from 'node:http';
import type { Cursor } from '../relay/cursor.ts';
import type { Outlet } from '../relay/outlet.ts';

export interface Client {
  /** counts up within this run of the process */
  readonly id: number;
  readonly transport: 'websocket' | 'sse';
  /** what is spoken: `plain`, `plank.v1` or `events` */
  readonly mode: string;
  /** as the proxy in front reports it, else the socket's own */
  readonly address: string;
  /** when it connected, as performance.now() */
  readonly openedAt: number;
  readonly outlet: Outlet;
  readonly cursors: readonly Cursor[];
  /** the client knows a position to go on from: what is committed while it is away reaches it afterwards */
  readonly resumes: boolean;
  /** Announces that the client will be closed after this time. */
  warn(afterMs: number): void;
  /** Closes the client, which comes back to the replica that the balancer chooses. */
  dismiss(reason: string): void;
  /** Closes the client on behalf of an operator; it may come back. */
  disconnect(): void;
  /** Ends the connection at once, without a goodbye. */
  cut(): void;
}

let lastId = 0;

export const nextClientId = (): number => ++lastId;

/**
 * The address from which a proxy in front saw the client: it appends that to X-Forwarded-For. Null:
 * no proxy reported one.
 */
export function forwardedFor({ headers }: IncomingMessage): string | null {
  const forwarded = headers['x-forwarded-for'];
  const last = typeof forwarded === 'string' ? forwarded.split(',').at(-1)!.trim() : '';
  return last === '' ? null : last.slice(0, 45);
}

export function addressOf(outlet: Outlet, forwardedFor: string | null): string {
  // IPv4 within IPv6
  return (forwardedFor ?? outlet.remoteAddress).replace(/^::ffff:/, '');
}
