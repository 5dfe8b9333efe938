// Tokens without a gateway: which keys are usable and which tokens they admit, a key set that is fetched and rotates, and the wheel
// of expiries under a clock that jumps.

import { generateKeyPairSync, type KeyObject } from 'node:crypto';
import { once } from 'node:events';
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { createServer } from 'node:http';
import type { AddressInfo } from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { Registry } from 'prom-client';
import { afterEach, describe, expect, test, vi } from 'vitest';
import { Expiries } from '#gateway/access/expiries.ts';
import { Identities, TokenRefused } from '#gateway/access/identity.ts';
import { KeysUnavailable } from '#gateway/access/keys.ts';
import type { Identity } from '#gateway/access/viewer.ts';
import { gatewaySchema, readConfig } from '#shared/process/config.ts';
import { createLog } from '#shared/process/logger.ts';
import { gatewayMetrics } from '#shared/process/metrics.ts';
import { claimsOf, hmacToken, rsaKeys, rsaToken, secret } from '../support/stage/tokens.ts';

const log = createLog('silent', 'test', 'test');
const env = { DATABASE_URL: 'postgres://u:p@localhost/d', AUTH: 'jwt' };
const keys = rsaKeys();

function identities(settings: Record<string, string>): Identities {
  const config = readConfig(gatewaySchema, { ...env, ...settings });
  return new Identities(config, {
    revocations: { isRevoked: () => false },
    tickets: { redeem: async () => null },
    limits: { mayTryToken: () => {}, countRefused: async () => {} },
    log,
    metrics: gatewayMetrics(new Registry()),
  });
}

/** The user, or why the token is refused. */
async function outcome(of: Identities, token: string): Promise<string> {
  return of.ofToken(token, '').then(
    ({ user, role }) => `${user} as ${role}`,
    (error: unknown) => {
      if (error instanceof TokenRefused) return error.reason;
      if (error instanceof KeysUnavailable) return 'unavailable';
      throw error;
    },
  );
}

const jwkOf = (key: KeyObject, more: object = {}) => ({ ...key.export({ format: 'jwk' }), ...more });

describe('AUTH_PUBLIC_KEY', () => {
  test.each<[string, string]>([
    ['PEM', keys.pem],
    ['PEM in one line', keys.pem.replaceAll('\n', '\\n')],
    ['a JWK', JSON.stringify(jwkOf(keys.publicKey))],
    [
      'a JWK set',
      JSON.stringify({ keys: [jwkOf(rsaKeys().publicKey, { kid: 'b' }), jwkOf(keys.publicKey, { kid: 'a' })] }),
    ],
  ])('%s admits the tokens of its key', async (_, AUTH_PUBLIC_KEY) => {
    const found = identities({ AUTH_PUBLIC_KEY });
    expect(await outcome(found, rsaToken(claimsOf(), keys.privateKey, { kid: 'a' }))).toBe('ada as authenticated');
    expect(await outcome(found, rsaToken(claimsOf(), rsaKeys().privateKey, { kid: 'a' }))).toBe('invalid');
  });

  test('a file admits the tokens of its key', async () => {
    const folder = mkdtempSync(join(tmpdir(), 'plank-keys-'));
    const AUTH_PUBLIC_KEY = join(folder, 'key.pem');
    writeFileSync(AUTH_PUBLIC_KEY, keys.pem);
    const found = identities({ AUTH_PUBLIC_KEY });
    rmSync(folder, { recursive: true });
    expect(await outcome(found, rsaToken(claimsOf(), keys.privateKey))).toBe('ada as authenticated');
  });

  const pem = (key: KeyObject) => key.export({ type: 'pkcs8', format: 'pem' }).toString();
  test.each<[string, string, string]>([
    ['a private key', pem(keys.privateKey), 'is a private key'],
    ['a private JWK', JSON.stringify(jwkOf(keys.privateKey)), 'has a private key'],
    [
      'a symmetric JWK',
      JSON.stringify({ kty: 'oct', k: Buffer.from(secret).toString('base64url') }),
      'is not a public key',
    ],
    ['an RSA key of 1024 bits', rsaKeys(1_024).pem, 'less than 2048 bits'],
    ['a set without keys', '{"keys":[]}', 'has no keys'],
    ['JSON that is cut', '{"keys":', 'is not a public key'],
    ['a file that is not there', '/nowhere/hunter2.pem', 'ENOENT'],
    ['PEM of nothing', '-----BEGIN PUBLIC KEY-----\nhunter2\n-----END PUBLIC KEY-----', 'is not a public key'],
    [
      'another curve',
      generateKeyPairSync('ec', { namedCurve: 'secp256k1' })
        .publicKey.export({ type: 'spki', format: 'pem' })
        .toString(),
      'of another kind',
    ],
  ])('%s is refused at the start', (_, AUTH_PUBLIC_KEY, problem) => {
    let message = '';
    try {
      identities({ AUTH_PUBLIC_KEY });
    } catch (error) {
      message = (error as Error).message;
    }
    expect(message).toContain(`AUTH_PUBLIC_KEY ${problem.startsWith('E') ? 'is neither' : ''}`);
    expect(message).toContain(problem);
    expect(message).not.toContain('hunter2');
  });

  test('the bytes of a public key are no secret of HS256', async () => {
    const found = identities({ AUTH_PUBLIC_KEY: keys.pem });
    for (const bytes of [keys.pem, keys.pem.trim(), keys.publicKey.export({ type: 'spki', format: 'der' })])
      expect(await outcome(found, hmacToken(claimsOf(), bytes))).toBe('invalid');
  });
});

test.each<[string, string, object, string]>([
  ['role', 'a name', { role: 'editor' }, 'ada as editor'],
  ['realm.role', 'a path', { realm: { role: 'editor' } }, 'ada as editor'],
  ['https://a.example/role', 'a name with dots', { 'https://a.example/role': 'editor' }, 'ada as editor'],
  ['realm.role', 'a path that ends early', { realm: 'x' }, 'ada as authenticated'],
  ['__proto__.x', 'a path through the prototype', {}, 'ada as authenticated'],
  ['constructor.name', 'a path to what objects inherit', {}, 'ada as authenticated'],
  ['role', 'a list', { role: ['editor'] }, 'claims'],
  ['role', 'an empty text', { role: '' }, 'claims'],
  ['role', 'null', { role: null }, 'claims'],
])('the role claim %s, %s', async (AUTH_ROLE_CLAIM, _, claims, expected) => {
  const found = identities({ AUTH_JWT_SECRET: secret, AUTH_ROLE_CLAIM });
  expect(await outcome(found, hmacToken(claimsOf(claims)))).toContain(expected);
});

describe('AUTH_JWKS_URL', () => {
  afterEach(() => {
    vi.useRealTimers();
  });

  /** A server of key sets; `set` null: it answers 500. */
  async function served(): Promise<{ url: string; set: object | null; asked: number; stop(): void }> {
    const state = { url: '', set: null as object | null, asked: 0, stop: () => void server.close() };
    const server = createServer((_request, response) => {
      state.asked++;
      response.statusCode = state.set === null ? 500 : 200;
      response.end(JSON.stringify(state.set));
    });
    await once(server.listen(0, '127.0.0.1'), 'listening');
    state.url = `http://127.0.0.1:${(server.address() as AddressInfo).port}/keys.json`;
    return state;
  }
  const setOf = (kid: string, key: KeyObject) => ({ keys: [jwkOf(key, { kid, alg: 'RS256' })] });

  test('keys rotate, the last set stays while the URL fails, and unknown keys do not flood it', async () => {
    vi.useFakeTimers({ toFake: ['Date', 'performance'] });
    const server = await served();
    const other = rsaKeys();
    const token = (kid: string, key: KeyObject) => rsaToken(claimsOf(), key, { kid });
    try {
      const found = identities({ AUTH_JWKS_URL: server.url });
      expect(await outcome(found, token('a', keys.privateKey))).toBe('unavailable');
      expect(server.asked).toBe(1);
      // not asked again at once
      expect(await outcome(found, token('a', keys.privateKey))).toBe('unavailable');
      expect(server.asked).toBe(1);
      server.set = setOf('a', keys.publicKey);
      vi.advanceTimersByTime(4_000);
      expect(await outcome(found, token('a', keys.privateKey))).toBe('ada as authenticated');
      expect(server.asked).toBe(2);

      server.set = setOf('b', other.publicKey);
      for (let i = 0; i < 20; i++) expect(await outcome(found, token(`x${i}`, other.privateKey))).toBe('unknown_key');
      expect(server.asked).toBe(2);
      vi.advanceTimersByTime(31_000);
      expect(await outcome(found, token('b', other.privateKey))).toBe('ada as authenticated');
      expect(server.asked).toBe(3);
      expect(await outcome(found, token('a', keys.privateKey))).toBe('unknown_key');

      server.set = null;
      vi.advanceTimersByTime(11 * 60_000);
      for (let i = 0; i < 3; i++)
        expect(await outcome(found, token('b', other.privateKey))).toBe('ada as authenticated');
      expect(await outcome(found, token('c', other.privateKey))).toBe('unavailable');
      // an algorithm that is not accepted, and a symmetric one, ask nobody
      const { asked } = server;
      expect(await outcome(found, hmacToken(claimsOf(), other.pem, { kid: 'b' }))).toBe('invalid');
      expect(server.asked).toBe(asked);
    } finally {
      server.stop();
    }
  });

  test('a symmetric key of a key set is not used', async () => {
    const server = await served();
    server.set = { keys: [{ kty: 'oct', kid: 'a', alg: 'HS256', k: Buffer.from(secret).toString('base64url') }] };
    try {
      const found = identities({ AUTH_JWKS_URL: server.url });
      expect(await outcome(found, hmacToken(claimsOf(), secret, { kid: 'a' }))).toBe('invalid');
    } finally {
      server.stop();
    }
  });

  test('a hostile jku or jwk of a token is not read', async () => {
    const server = await served();
    const own = await served();
    server.set = setOf('a', keys.publicKey);
    const other = rsaKeys();
    own.set = setOf('a', other.publicKey);
    try {
      const found = identities({ AUTH_JWKS_URL: server.url });
      const header = { kid: 'a', jku: own.url, x5u: own.url, jwk: jwkOf(other.publicKey) };
      expect(await outcome(found, rsaToken(claimsOf({ iss: own.url }), other.privateKey, header))).toBe('invalid');
      expect(own.asked).toBe(0);
    } finally {
      server.stop();
      own.stop();
    }
  });
});

describe('expiries', () => {
  function wheel() {
    let clock = 1_000_000_000;
    const expiries = new Expiries(() => clock);
    const ended: string[] = [];
    const client = (name: string) => ({ expire: () => void ended.push(name) });
    const at = (seconds: number) => {
      clock = seconds * 1_000;
      expiries.tick();
      return ended.splice(0);
    };
    return { expiries, client, at };
  }
  const begin = 1_000_000;
  const until = (expiresAt: number) => ({ expiresAt }) as Identity;

  test('each client ends in its second, not before, and once', () => {
    const { expiries, client, at } = wheel();
    expiries.set(client('a'), until(begin + 2));
    expiries.set(client('b'), until(begin + 2.5));
    expect(at(begin + 1.9)).toEqual([]);
    expect(at(begin + 2)).toEqual(['a']);
    expect(at(begin + 3)).toEqual(['b']);
    expect(at(begin + 9)).toEqual([]);
  });

  test('a clock that jumps ahead ends those whose time has come, and one that goes back none early', () => {
    const { expiries, client, at } = wheel();
    expiries.set(client('a'), until(begin + 60));
    expiries.set(client('b'), until(begin + 3_000));
    expiries.set(client('c'), until(begin + 9_000));
    expect(at(begin + 3_600)).toEqual(['a', 'b']);
    expect(at(begin - 3_600)).toEqual([]);
    expiries.set(client('d'), until(begin - 3_000));
    expect(at(begin - 3_000)).toEqual(['d']);
    expect(at(begin + 9_000)).toEqual(['c']);
  });

  test('a client that renewed ends later, one that left does not end, one that came late ends next', () => {
    const { expiries, client, at } = wheel();
    const [a, b] = [client('a'), client('b')];
    for (const one of [a, b]) expiries.set(one, until(begin + 2));
    expiries.set(a, until(begin + 5));
    expiries.delete(b);
    expect(at(begin + 4)).toEqual([]);
    expiries.set(client('late'), until(begin + 1));
    expect(at(begin + 5)).toEqual(['a', 'late']);
  });
});
