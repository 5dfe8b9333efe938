/**
 * Finds the identity of a client by the client's token. The package jose does all of the cryptography. What must
 * stay true:
 * - A client with a token that is refused is never treated as a client without a token.
 * - Nothing of a token is logged or sent to the client. Only the reason of a refusal is.
 */
import type { IncomingMessage } from 'node:http';
import { errors, type JWTPayload, jwtVerify } from 'jose';
import type { GatewayConfig } from '#shared/process/config.ts';
import type { Log } from '#shared/process/logger.ts';
import type { GatewayMetrics } from '#shared/process/metrics.ts';
import { claimOf } from './claims.ts';
import { type KeySettings, type Keys, KeysUnavailable, keysOf } from './keys.ts';
import type { Limits } from './limits.ts';
import type { Revocations } from './revocations.ts';
import type { Tickets } from './tickets.ts';
import type { Identity } from './viewer.ts';

const texts = {
  invalid: 'the token is not one that this gateway accepts',
  unknown_key: 'the token is signed with a key that is not known here',
  expired: 'the token has expired',
  revoked: 'the token was revoked',
  not_yet_valid: 'the token is not valid yet',
  issuer: 'the token has another issuer than this gateway accepts',
  audience: 'the token is for another audience',
  lifetime: 'the token is valid for longer than this gateway accepts',
  claims: 'the token needs exp, a sub that is a text, and a role that is a text',
  ticket: 'the ticket is not one that was issued, or was used already',
  origin: 'a cookie counts only for pages of the listed origins',
  other_user: 'the token is of another user',
} as const;

export type Reason = keyof typeof texts;

/** The client's token is refused. The message is for the client. */
export class TokenRefused extends Error {
  override readonly name = 'TokenRefused';
  readonly reason: Reason;

  constructor(reason: Reason) {
    super(texts[reason]);
    this.reason = reason;
  }
}

type IdentitySettings = KeySettings &
  Pick<
    GatewayConfig,
    'AUTH_ISSUER' | 'AUTH_AUDIENCE' | 'AUTH_MAX_LIFETIME_S' | 'AUTH_ROLE_CLAIM' | 'AUTH_COOKIE' | 'CORS_ORIGINS'
  >;

const maxTokenLength = 8_192;
const maxNameLength = 1_000;
/**
 * the clocks of an issuer and a gateway may differ by this time. The tolerance counts for `nbf` and not for `exp`: a
 * token is expired as soon as this gateway's clock reaches its `exp`.
 */
const toleranceS = 5;
const defaultRole = 'authenticated';

interface IdentityDeps {
  revocations: Pick<Revocations, 'isRevoked'>;
  tickets: Pick<Tickets, 'redeem'>;
  limits: Pick<Limits, 'mayTryToken' | 'countRefused'>;
  log: Log;
  metrics: Pick<GatewayMetrics, 'auth'>;
}

export class Identities {
  readonly #settings: IdentitySettings;
  readonly #keys: Keys;
  readonly #log: Log;
  readonly #metrics: Pick<GatewayMetrics, 'auth'>;
  readonly #revocations: Pick<Revocations, 'isRevoked'>;
  readonly #tickets: Pick<Tickets, 'redeem'>;
  readonly #limits: IdentityDeps['limits'];

  /** Throws if the key in the settings cannot be used. */
  constructor(settings: IdentitySettings, { revocations, tickets, limits, log, metrics }: IdentityDeps) {
    this.#limits = limits;
    this.#tickets = tickets;
    this.#revocations = revocations;
    this.#settings = settings;
    this.#keys = keysOf(settings, log);
    this.#log = log;
    this.#metrics = metrics;
  }

  /**
   * The identity of the client that sent the request. The first of these counts: the Authorization header, the ticket
   * in the URL, the cookie (AUTH_COOKIE). Null: the request has none of them. Throws TokenRefused, KeysUnavailable or
   * TooMany.
   */
  async ofRequest(request: IncomingMessage, address: string, ticket: string | null = null): Promise<Identity | null> {
    const token = bearerOf(request);
    if (token !== null) return this.ofToken(token, address);
    if (ticket !== null) return this.#ofTicket(ticket, address);
    const { AUTH_COOKIE: name, CORS_ORIGINS: origins } = this.#settings;
    const cookie = name === undefined ? null : cookieOf(request, name);
    if (cookie === null) return null;
    // browsers send cookies also with requests of foreign pages
    if (!isOfOwnPage(request, origins)) throw this.#refuse('origin', address);
    return this.ofToken(cookie, address);
  }

  async #ofTicket(ticket: string, address: string): Promise<Identity> {
    this.#limits.mayTryToken(address);
    const identity = await this.#tickets.redeem(ticket).catch(() => {
      throw new KeysUnavailable('tickets cannot be checked now');
    });
    if (identity === null) throw this.#refuse('ticket', address);
    if (identity.expiresAt * 1_000 <= Date.now()) throw this.#refuse('expired', address);
    if (this.#revocations.isRevoked(identity)) throw this.#refuse('revoked', address);
    this.#metrics.auth.inc({ result: 'ok' });
    return identity;
  }

  /**
   * @param former the identity of the client until now; a token of another user is refused. Null: there is none
   *
   * Throws TokenRefused, KeysUnavailable or TooMany.
   */
  async ofToken(token: string, address: string, former: Identity | null = null): Promise<Identity> {
    this.#limits.mayTryToken(address);
    try {
      const identity = await this.#read(token);
      if (former !== null && former.user !== identity.user) throw new TokenRefused('other_user');
      this.#metrics.auth.inc({ result: 'ok' });
      return identity;
    } catch (error) {
      if (error instanceof KeysUnavailable) this.#metrics.auth.inc({ result: 'unavailable' });
      throw error instanceof KeysUnavailable ? error : this.#refuse(reasonOf(error), address);
    }
  }

  /** Counts and logs a refusal, and returns it. */
  #refuse(reason: Reason, address: string): TokenRefused {
    this.#metrics.auth.inc({ result: reason });
    if (!isTimely(reason)) void this.#limits.countRefused(address);
    this.#log.info({ reason, address }, 'a client was refused');
    return new TokenRefused(reason);
  }

  async #read(token: string): Promise<Identity> {
    if (token.length > maxTokenLength) throw new TokenRefused('invalid');
    const { AUTH_ISSUER: issuer, AUTH_AUDIENCE: audience } = this.#settings;
    const { payload } = await jwtVerify(token, this.#keys.find, {
      algorithms: this.#keys.algorithms,
      clockTolerance: toleranceS,
      requiredClaims: ['exp', 'sub'],
      ...(issuer === undefined ? {} : { issuer }),
      ...(audience === undefined ? {} : { audience }),
    });
    const identity = this.#identityOf(payload, Date.now() / 1_000);
    if (this.#revocations.isRevoked(identity)) throw new TokenRefused('revoked');
    return identity;
  }

  #identityOf(payload: JWTPayload, now: number): Identity {
    const { exp, iat, sub: user } = payload;
    if (exp === undefined || !isName(user)) throw new TokenRefused('claims');
    if (exp <= now) throw new TokenRefused('expired');
    if (!(exp - Math.min(iat ?? now, now) <= this.#settings.AUTH_MAX_LIFETIME_S)) throw new TokenRefused('lifetime');
    const claim = claimOf(payload, this.#settings.AUTH_ROLE_CLAIM);
    // a role that is not a text is refused: the default role may have more rights than that role was meant to have
    const role = claim === undefined ? defaultRole : claim;
    if (!isName(role)) throw new TokenRefused('claims');
    const tokenId = typeof payload.jti === 'string' ? payload.jti : null;
    return { user, role, claims: payload, expiresAt: exp, tokenId, issuedAt: iat ?? 0 };
  }
}

/** Whether honest clients send such tokens, for example after a night asleep. These tokens do not count as guesses. */
const isTimely = (reason: Reason): boolean =>
  reason === 'expired' || reason === 'revoked' || reason === 'not_yet_valid' || reason === 'other_user';

/** The number of whole seconds until the token expires, at least 0. */
export const secondsLeft = ({ expiresAt }: Identity): number => Math.max(0, Math.floor(expiresAt - Date.now() / 1_000));

const isName = (value: unknown): value is string =>
  typeof value === 'string' && value.length > 0 && value.length <= maxNameLength;

/**
 * Null: there is no Authorization header. Empty: the header is not `Bearer <token>`, or came more than once; an empty
 * token is refused.
 */
function bearerOf({ headers, rawHeaders }: IncomingMessage): string | null {
  const { authorization } = headers;
  if (authorization === undefined) return null;
  // `headers` has only the first Authorization header, so this counts all of them
  const count = rawHeaders.filter((name, i) => i % 2 === 0 && name.toLowerCase() === 'authorization').length;
  // '' is not a token, so it is refused like any malformed token
  return count > 1 ? '' : (/^Bearer +([\w.~+/=-]+)$/i.exec(authorization)?.[1] ?? '');
}

/** The value of the cookie. Null: there is no such cookie. '', which is refused: there is more than one. */
function cookieOf({ headers }: IncomingMessage, name: string): string | null {
  const values = (headers.cookie ?? '').split(';').flatMap((pair) => {
    const at = pair.indexOf('=');
    return pair.slice(0, at).trim() === name ? [pair.slice(at + 1).trim()] : [];
  });
  return values.length > 1 ? '' : (values[0] ?? null);
}

/**
 * Whether the request comes from a page of a listed origin, or is a GET or HEAD without an Origin header, and not an
 * upgrade. Browsers send no Origin header with a GET of a page of the gateway's own origin.
 */
function isOfOwnPage({ headers, method }: IncomingMessage, origins: readonly string[]): boolean {
  const { origin, upgrade } = headers;
  if (origin !== undefined) return origins.includes(origin);
  return upgrade === undefined && (method === 'GET' || method === 'HEAD');
}

/** Turns an error of jose into a reason. Errors of jose contain the token's claims, so nothing else is passed on. */
function reasonOf(error: unknown): Reason {
  if (error instanceof TokenRefused) return error.reason;
  if (error instanceof errors.JWTExpired) return 'expired';
  if (error instanceof errors.JWKSNoMatchingKey || error instanceof errors.JWKSMultipleMatchingKeys)
    return 'unknown_key';
  if (!(error instanceof errors.JWTClaimValidationFailed)) return 'invalid';
  if (error.claim === 'iss') return 'issuer';
  if (error.claim === 'aud') return 'audience';
  return error.claim === 'nbf' && error.reason === 'check_failed' ? 'not_yet_valid' : 'claims';
}
