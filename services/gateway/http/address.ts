/** From which address a request came. */
import type { IncomingMessage } from 'node:http';

/**
 * The address from which a proxy in front saw the client: it appends that to X-Forwarded-For. Null:
 * no proxy reported one.
 */
export function forwardedFor({ headers }: IncomingMessage): string | null {
  const forwarded = headers['x-forwarded-for'];
  const last = typeof forwarded === 'string' ? forwarded.split(',').at(-1)!.trim() : '';
  return last === '' ? null : last.slice(0, 45);
}

/** As the proxy in front reports it, else the socket's own. */
export function addressOf(request: IncomingMessage): string {
  // IPv4 within IPv6
  return (forwardedFor(request) ?? request.socket.remoteAddress ?? '').replace(/^::ffff:/, '');
}
