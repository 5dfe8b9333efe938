/**
 * The keys that tokens are checked with, from one of three settings. What must stay true:
 * - The kind of the key decides which algorithms are accepted. The token never does.
 * - A key set is fetched only from the configured URL.
 */
import { createPublicKey, type KeyObject } from 'node:crypto';
import { readFileSync } from 'node:fs';
import {
  createLocalJWKSet,
  createRemoteJWKSet,
  customFetch,
  errors,
  type FetchImplementation,
  type JWK,
  type JWTVerifyGetKey,
} from 'jose';
import type { GatewayConfig } from '#shared/process/config.ts';
import type { Log } from '#shared/process/logger.ts';

export interface Keys {
  readonly algorithms: string[];
  /** Throws an error of jose if there is no key for the token, and KeysUnavailable if the keys cannot be fetched. */
  readonly find: JWTVerifyGetKey;
}

export type KeySettings = Pick<GatewayConfig, 'AUTH_JWT_SECRET' | 'AUTH_PUBLIC_KEY' | 'AUTH_JWKS_URL'>;

/** The token cannot be checked now, because the keys for it cannot be fetched or the ticket cannot be read. */
export class KeysUnavailable extends Error {
  override readonly name = 'KeysUnavailable';
}

const rsa = ['RS256', 'RS384', 'RS512', 'PS256', 'PS384', 'PS512'];
const curves: Readonly<Record<string, string>> = { prime256v1: 'ES256', secp384r1: 'ES384', secp521r1: 'ES512' };
const edwards = ['EdDSA', 'Ed25519'];
const asymmetric = [...rsa, ...Object.values(curves), ...edwards];
const minRsaBits = 2_048;

/** a key set that is older than this is fetched again, and stays in use while the fetch fails */
const maxAgeMs = 10 * 60_000;
/** the shortest time between two fetches because of keys that the set does not have */
const coolDownMs = 30_000;
const fetchMs = 3_000;
/** after a failure, no fetch is attempted for this time, and tokens that need one are refused at once */
const afterFailureMs = 3_000;

/** If the key cannot be used, throws an error that names the setting. */
export function keysOf({ AUTH_JWT_SECRET, AUTH_PUBLIC_KEY, AUTH_JWKS_URL }: KeySettings, log: Log): Keys {
  if (AUTH_JWT_SECRET !== undefined) {
    const secret = Buffer.from(AUTH_JWT_SECRET);
    return { algorithms: ['HS256'], find: async () => secret };
  }
  if (AUTH_PUBLIC_KEY !== undefined) return publicKeys(AUTH_PUBLIC_KEY);
  if (AUTH_JWKS_URL !== undefined) return remoteKeys(new URL(AUTH_JWKS_URL), log);
  throw new Error('AUTH=jwt needs a key');
}

function publicKeys(setting: string): Keys {
  const text = contentOf(setting);
  if (!text.startsWith('{')) {
    // Node would derive the public key from a private key, but a private key must not be in a gateway's settings
    if (text.includes('PRIVATE KEY')) throw wrongKey('is a private key: the gateway needs the public one');
    const key = readKey(() => createPublicKey(text));
    return { algorithms: algorithmsOf(key), find: async () => key };
  }
  const json = readKey(() => JSON.parse(text) as JWK | { keys: unknown });
  if (!('keys' in json)) {
    const key = keyOfJwk(json);
    return { algorithms: algorithmsOf(key), find: async () => key };
  }
  const { keys } = json;
  if (!Array.isArray(keys) || keys.length === 0) throw wrongKey('has no keys');
  const algorithms = keys.flatMap((jwk: JWK) => algorithmsOf(keyOfJwk(jwk)));
  return { algorithms: [...new Set(algorithms)], find: createLocalJWKSet({ keys }) };
}

function keyOfJwk(jwk: JWK): KeyObject {
  if (typeof jwk?.d === 'string') throw wrongKey('has a private key: the gateway needs the public one');
  return readKey(() => createPublicKey({ key: jwk, format: 'jwk' }));
}

function contentOf(setting: string): string {
  if (setting.startsWith('{') || setting.startsWith('-----BEGIN')) return setting.replaceAll('\\n', '\n');
  try {
    return readFileSync(setting, 'utf8').trim();
  } catch (error) {
    // the error does not contain the setting: it may be a key that was pasted wrongly, and not a path
    throw wrongKey(`is neither PEM nor JSON, nor a file that can be read (${(error as NodeJS.ErrnoException).code})`);
  }
}

/** Does not pass on the error of the parser, because the error may quote the key. */
function readKey<T>(read: () => T): T {
  try {
    return read();
  } catch {
    throw wrongKey('is not a public key as PEM, a JWK or a JWK set');
  }
}

function algorithmsOf({ asymmetricKeyType: type, asymmetricKeyDetails: details }: KeyObject): string[] {
  if (type === 'rsa') {
    if ((details?.modulusLength ?? 0) >= minRsaBits) return rsa;
    throw wrongKey(`is an RSA key of less than ${minRsaBits} bits`);
  }
  if (type === 'ed25519') return edwards;
  const ofCurve = curves[details?.namedCurve ?? ''];
  if (type === 'ec' && ofCurve !== undefined) return [ofCurve];
  throw wrongKey('has a key of another kind than RSA, EC (P-256, P-384, P-521) and Ed25519');
}

const wrongKey = (problem: string) => new Error(`AUTH_PUBLIC_KEY ${problem}`);

/**
 * A key set that its issuer rotates. While the URL does not answer, the last set that was fetched stays in use. Then
 * only tokens with keys that this set lacks cannot be checked.
 */
function remoteKeys(url: URL, log: Log): Keys {
  let failedAt = Number.NEGATIVE_INFINITY;
  let isFailing = false;
  let askedAt = performance.now();
  const request: FetchImplementation = async (where, options) => {
    if (performance.now() - failedAt < afterFailureMs) throw new KeysUnavailable('the keys could not be fetched');
    return fetch(where, options);
  };
  const set = createRemoteJWKSet(url, {
    cacheMaxAge: Number.POSITIVE_INFINITY,
    cooldownDuration: coolDownMs,
    timeoutDuration: fetchMs,
    [customFetch]: request,
  });
  const onFailure = (error: unknown) => {
    if (error instanceof KeysUnavailable) return;
    failedAt = performance.now();
    if (!isFailing) log.warn({ err: error }, 'the keys of tokens cannot be fetched (AUTH_JWKS_URL)');
    isFailing = true;
  };
  const onSuccess = () => {
    if (isFailing) log.info('the keys of tokens can be fetched again');
    isFailing = false;
  };
  const refresh = () => {
    askedAt = performance.now();
    set.reload().then(onSuccess, onFailure);
  };
  const find: JWTVerifyGetKey = async (header, token) => {
    if (performance.now() - askedAt > maxAgeMs) refresh();
    try {
      const key = await set(header, token);
      onSuccess();
      return key;
    } catch (error) {
      if (isAboutToken(error)) throw error;
      onFailure(error);
      throw new KeysUnavailable('the keys of tokens cannot be fetched now: try again', { cause: error });
    }
  };
  return { algorithms: asymmetric, find };
}

/** Whether the key set was read, and has no key for the token. */
const isAboutToken = (error: unknown) =>
  error instanceof errors.JWKSNoMatchingKey ||
  error instanceof errors.JWKSMultipleMatchingKeys ||
  error instanceof errors.JOSENotSupported;
