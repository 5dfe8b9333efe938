/**
 * Finds the address that a request came from. An address in X-Forwarded-For counts only if a trusted proxy
 * (TRUSTED_PROXIES) wrote it, because any client can send a forged header.
 */
import type { IncomingMessage } from 'node:http';
import { isIP } from 'node:net';
import proxyAddr from 'proxy-addr';

export class Addresses {
  readonly #isTrusted: (address: string, index: number) => boolean;

  /** `trusted`: networks like 10.0.0.0/8, addresses, or the names loopback, linklocal and uniquelocal. */
  constructor(trusted: readonly string[]) {
    this.#isTrusted = proxyAddr.compile([...trusted]);
  }

  /** The client's address as trusted proxies report it. Null: they report no address, or the socket's own. */
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
