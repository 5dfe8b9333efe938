// Makes tokens with parts that jose refuses to make: any header, any claims, any signature.

import { createHmac, generateKeyPairSync, type KeyObject, sign } from 'node:crypto';

export const secret = 'a secret for tests that has 32 bytes or more';

export const now = () => Math.floor(Date.now() / 1_000);

/** Valid for 10 minutes unless the claims say otherwise; a claim that is undefined is left out. */
export const claimsOf = (claims: object = {}) => ({ sub: 'ada', iat: now(), exp: now() + 600, ...claims });

const part = (value: object) => Buffer.from(JSON.stringify(value)).toString('base64url');

/** HS256 with `key`, whatever the header says. */
export function hmacToken(
  claims: object,
  key: string | Buffer = secret,
  header: object = {},
  digest = 'sha256',
): string {
  const signed = `${part({ alg: 'HS256', ...header })}.${part(claims)}`;
  return `${signed}.${createHmac(digest, key).update(signed).digest('base64url')}`;
}

export const tokenOf = (claims: object = {}) => hmacToken(claimsOf(claims));

export const unsigned = (claims: object, alg = 'none') => `${part({ alg })}.${part(claims)}.`;

export function rsaToken(claims: object, key: KeyObject, header: object = {}): string {
  const signed = `${part({ alg: 'RS256', ...header })}.${part(claims)}`;
  return `${signed}.${sign('sha256', Buffer.from(signed), key).toString('base64url')}`;
}

export function rsaKeys(bits = 2_048): { privateKey: KeyObject; publicKey: KeyObject; pem: string } {
  const pair = generateKeyPairSync('rsa', { modulusLength: bits });
  return { ...pair, pem: pair.publicKey.export({ type: 'spki', format: 'pem' }).toString() };
}
