// The address of a client: what X-Forwarded-For may say, and who may say it.

import type { IncomingMessage } from 'node:http';
import { describe, expect, test } from 'vitest';
import { Addresses } from '#gateway/http/address.ts';
import { gatewaySchema, readConfig } from '#shared/process/config.ts';

function addressOf(remoteAddress: string, forwarded: string | undefined, trusted: string): string {
  const config = readConfig(gatewaySchema, { DATABASE_URL: 'postgres://h/d', TRUSTED_PROXIES: trusted });
  const headers = forwarded === undefined ? {} : { 'x-forwarded-for': forwarded };
  return new Addresses(config.TRUSTED_PROXIES).of({ socket: { remoteAddress }, headers } as IncomingMessage);
}

const near = 'loopback,linklocal,uniquelocal';
describe('the address of a client', () => {
  test.each([
    // the socket's end, X-Forwarded-For, trusted proxies, the client
    ['8.8.8.8', undefined, near, '8.8.8.8'],
    ['::ffff:8.8.8.8', undefined, near, '8.8.8.8'],
    ['10.0.0.1', '1.2.3.4', near, '1.2.3.4'],
    ['127.0.0.1', '2001:db8::1', near, '2001:db8::1'],
    // a client may have written all but the last entry
    ['10.0.0.1', '9.9.9.9, 1.2.3.4', near, '1.2.3.4'],
    ['10.0.0.1', '1.2.3.4, 10.0.0.2', near, '1.2.3.4'],
    // not a proxy that is trusted: forged
    ['8.8.8.8', '1.2.3.4', near, '8.8.8.8'],
    ['10.0.0.1', '1.2.3.4', 'none', '10.0.0.1'],
    ['10.0.0.1', '1.2.3.4', '192.168.0.0/16', '10.0.0.1'],
    ['8.8.8.8', '1.2.3.4', '8.8.8.0/24', '1.2.3.4'],
    ['10.0.0.1', 'unknown', near, '10.0.0.1'],
    ['10.0.0.1', '<script>', near, '10.0.0.1'],
    ['10.0.0.1', '', near, '10.0.0.1'],
  ])(
    'of a socket from %s with X-Forwarded-For %s, with trusted proxies %s, is %s',
    (remote, header, trusted, client) => {
      expect(addressOf(remote, header, trusted)).toBe(client);
    },
  );

  test.each(['10.0.0.0/0', '10.0.0.0/33', 'example.com', '10.0.0.0/8/8', 'none,loopback', ','])(
    'TRUSTED_PROXIES=%s is refused',
    (trusted) => {
      expect(() => addressOf('10.0.0.1', undefined, trusted)).toThrow(/TRUSTED_PROXIES must be networks/);
    },
  );
});
