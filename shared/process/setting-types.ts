/**
 * The kinds of settings. A kind reads a value from the environment, and has the error message for values that are not
 * allowed.
 */
import { isIP } from 'node:net';
import { z } from 'zod';

/**
 * A setting that `read` parses. `allowed` is the error message. readConfig appends the given value unless it is a
 * secret.
 */
function field<T>(allowed: string, read: (text: string) => T | undefined) {
  return z.string().transform((text, context): T => {
    const value = read(text);
    if (value !== undefined) return value;
    context.addIssue({ code: 'custom', message: allowed });
    return z.NEVER;
  });
}

export function integer(what: string, min: number, max = Number.MAX_SAFE_INTEGER) {
  const range = max === Number.MAX_SAFE_INTEGER ? `${min} or more` : `from ${min} to ${max}`;
  return field(`must be a whole number${what}, ${range}`, (text) => {
    const value = /^\d{1,16}$/.test(text) ? Number(text) : Number.NaN;
    return value >= min && value <= max ? value : undefined;
  });
}

export const port = integer('', 0, 65_535);
const dayMs = 86_400_000;
export const ms = (min = 1, max = dayMs) => integer(' of milliseconds, without a unit', min, max);
export const bytes = integer(' of bytes, without a unit', 1024);

export function oneOf<const T extends string>(...values: T[]) {
  return field(`must be one of ${values.join(', ')}`, (text) => values.find((value) => value === text));
}

export function pattern(allowed: string, regex: RegExp) {
  return field(`must be ${allowed}`, (text) => (regex.test(text) ? text : undefined));
}

/** A secret for HS256. The secret must be at least as long as the digest of HS256 (RFC 7518, 3.2). */
export const hmacSecret = field('must be at least 32 bytes', (text) =>
  Buffer.byteLength(text) >= 32 ? text : undefined,
);

export const webUrl = field('must be a URL as https://example.com/keys.json, without a user and a password', (text) => {
  const url = /^https?:\/\//.test(text) && URL.canParse(text) ? new URL(text) : undefined;
  return url && url.username === '' && url.password === '' ? text : undefined;
});

export const host = field('must be an address or a name of this machine, without a scheme or a port', (text) => {
  // the last part of a host name contains a letter
  const isName = /^([a-z0-9-]+\.)*(?=[0-9-]*[a-z])[a-z0-9-]+$/i.test(text);
  return isName || isIP(text) > 0 ? text : undefined;
});

export const postgresUrl = field(
  'must be a URL as postgres://user:password@host:port/database, special characters of the password percent-encoded',
  (text) =>
    /^postgres(ql)?:\/\//.test(text) && URL.canParse(text.replace(/^([^/]+\/\/[^/]*@)\//, '$1host/'))
      ? text
      : undefined,
);

export const redisUrl = field('must be a URL as redis://host:port, or rediss:// with TLS', (text) =>
  /^rediss?:\/\/./.test(text) && URL.canParse(text) ? text : undefined,
);

/**
 * Origins are returned in the form in which browsers send them: in lower case, and with a port only if it is not the
 * scheme's default.
 */
export const origins = field(
  'must be origins, separated by commas, each as https://example.com or http://localhost:3000 (with a scheme, without a path), or * alone',
  (text) => {
    const parts = text
      .split(',')
      .map((part) => part.trim())
      .filter(Boolean);
    if (parts.length === 1 && parts[0] === '*') return parts;
    const named = parts.map(originOf);
    return named.length > 0 && named.every((origin) => origin !== undefined) ? named : undefined;
  },
);

function originOf(text: string): string | undefined {
  if (!/^[a-z][a-z0-9+.-]*:\/\/[^/?#@*\s]+$/i.test(text) || !URL.canParse(text)) return undefined;
  const { origin, protocol, host } = new URL(text);
  return origin === 'null' ? `${protocol}//${host}`.toLowerCase() : origin;
}

const networkNames = ['loopback', 'linklocal', 'uniquelocal'];

export const networks = field(
  'must be networks, separated by commas, each as 10.0.0.0/8, an address, or one of loopback, linklocal, uniquelocal; or none',
  (text) => {
    const parts = text
      .split(',')
      .map((part) => part.trim())
      .filter(Boolean);
    if (parts.length === 1 && parts[0] === 'none') return [];
    return parts.length > 0 && parts.every(isNetwork) ? parts : undefined;
  },
);

function isNetwork(text: string): boolean {
  if (networkNames.includes(text)) return true;
  const [address = '', bits, ...more] = text.split('/');
  const version = isIP(address);
  if (version === 0 || more.length > 0) return false;
  return (
    bits === undefined || (/^\d{1,3}$/.test(bits) && Number(bits) >= 1 && Number(bits) <= (version === 4 ? 32 : 128))
  );
}

/** The edit distance of two strings. Distances above `most` may be inexact. */
export function distance(a: string, b: string, most: number): number {
  if (Math.abs(a.length - b.length) > most) return most + 1;
  let row = Array.from({ length: b.length + 1 }, (_, i) => i);
  for (let i = 1; i <= a.length; i++) {
    const next = [i];
    for (let j = 1; j <= b.length; j++)
      next[j] = Math.min(row[j]! + 1, next[j - 1]! + 1, row[j - 1]! + (a[i - 1] === b[j - 1] ? 0 : 1));
    row = next;
  }
  return row[b.length]!;
}
