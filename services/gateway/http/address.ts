/**
 * From which address a request came. X-Forwarded-For counts only as far as the proxies that wrote it are trusted
 * (TRUSTED_PROXIES), as any other client could forge it.
 */
import type { IncomingMessage } from 'node:http';
import { isIP } from 'node:net';
import proxyAddr from 'proxy-addr';

export class Addresses {
  readonly #isTrusted: (address: string, index: number) => boolean;

  /** `trusted`: networks as 10.0.0.0/8, addresses, or the names loopback, linklocal and uniquelocal. */
  constructor(trusted: readonly string[]) {
    this.#isTrusted = proxyAddr.compile([...trusted]);
  }

  /** The client's address as trusted proxies report it. Null: the client is the other end of the socket. */
  forwarded(request: IncomingMessage): string | null {
    if (request.headers['x-forwarded-for'] === undefined) return null;
    const address = proxyAddr(request, this.#isTrusted);
    return isIP(address) === 0 || address === request.socket.remoteAddress ? null : address;
  }

  of(request: IncomingMessage): string {
    // an IPv4 address may come in IPv6 form: ::ffff:192.0.2.1
    return (this.forwarded(request) ?? request.socket.remoteAddress ?? '').replace(/^::ffff:/, '');
  }
}
