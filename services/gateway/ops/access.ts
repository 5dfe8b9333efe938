/**
 * Decides who may use the operations port. If OPS_TOKEN is set, a request must carry the token
 * (`Authorization: Bearer …`) or a cookie. A browser gets the cookie in exchange for the token, as a page
 * cannot set headers on its WebSockets.
 *
 * Requests from pages of other origins are always refused: a browser on this machine reaches the port, and
 * so does every page in that browser. If no token is set, pages whose own host name resolves to this
 * machine (DNS rebinding) must be refused as well.
 */
import { createHash, createHmac, timingSafeEqual } from 'node:crypto';
import type { IncomingMessage } from 'node:http';
import { isIP } from 'node:net';
import type { RequestHandler } from 'express';
import type { Addresses } from '../http/address.ts';
import { PlankError } from '../http/errors.ts';
import { Guesses } from './token-guesses.ts';

const cookieName = 'plank_operator';
const sessionMs = 12 * 3_600_000;

/** The detail of the error for requests from pages of other origins, and for host names that may be rebound. */
export const foreign =
  'pages of other origins may not do this; a host name with dots is served only where OPS_TOKEN is set';

export class OpsAccess {
  readonly #token: string | undefined;
  readonly #addresses: Addresses;
  readonly #guesses = new Guesses();

  constructor(token: string | undefined, addresses: Addresses) {
    this.#token = token;
    this.#addresses = addresses;
  }

  /**
   * If too many wrong tokens came from the client's address: the number of seconds until a token is checked
   * again; else 0. Call this before isAdmitted.
   */
  secondsUntilChecked(request: IncomingMessage): number {
    const hasToken = this.#token !== undefined && request.headers.authorization !== undefined;
    return hasToken ? this.#guesses.waitSeconds(this.#addresses.of(request)) : 0;
  }

  /** Whether the request carries the token or a valid cookie, or no token is set. */
  isAdmitted(request: IncomingMessage): boolean {
    if (this.#token === undefined) return true;
    const { authorization, cookie } = request.headers;
    if (authorization !== undefined) {
      const isRight = isSame(authorization, `Bearer ${this.#token}`);
      this.#guesses.count(this.#addresses.of(request), isRight);
      return isRight;
    }
    return this.#isValid(cookieOf(cookie ?? ''));
  }

  /**
   * Whether the request comes from a page of this port, or from no page (curl, an address typed into a
   * browser).
   */
  isOwn({ headers, method }: IncomingMessage): boolean {
    const { origin, host = '', 'content-type': type = '' } = headers;
    // DNS rebinding: the host name of a foreign page resolves to this machine, so the page's origin
    // equals the host name of the request. If a token is set, `isAdmitted` refuses such a page, because
    // the page has no cookie.
    if (this.#token === undefined && !isNear(host)) return false;
    if (origin !== undefined) return URL.canParse(origin) && new URL(origin).host === host;
    // browsers send no Origin with some requests, for example for an image, so Sec-Fetch-Site decides.
    // Following a link is allowed.
    const isForeign = /^(cross|same)-site$/.test(String(headers['sec-fetch-site']));
    if (method === 'GET' || method === 'HEAD') return !isForeign || headers['sec-fetch-mode'] === 'navigate';
    // an old browser sends neither Origin nor Sec-Fetch-Site. A form of a page of another origin can only
    // send the content types below, so they are refused.
    return !isForeign && !/^(application\/x-www-form-urlencoded|multipart\/form-data|text\/plain)\b/i.test(type);
  }

  /** Refuses requests that are not allowed. It guards everything except the files of the console. */
  readonly guard: RequestHandler = (request, response, next) => {
    if (!this.isOwn(request)) throw new PlankError('FORBIDDEN_ORIGIN', foreign);
    const seconds = this.secondsUntilChecked(request);
    if (seconds > 0) {
      response.set('Retry-After', String(seconds));
      throw new PlankError('TOO_MANY_GUESSES', tooMany(seconds));
    }
    if (this.isAdmitted(request)) return next();
    response.set('WWW-Authenticate', 'Bearer');
    throw new PlankError(
      'UNAUTHORIZED',
      "this needs the operators' token (OPS_TOKEN), sent as Authorization: Bearer …",
    );
  };

  /**
   * Gives the browser a cookie for WebSockets and later requests. Runs after `guard`, so the request
   * carries the token.
   */
  readonly open: RequestHandler = (request, response) => {
    if (this.#token !== undefined) {
      response.cookie(cookieName, this.#sign(Date.now() + sessionMs), {
        httpOnly: true,
        sameSite: 'strict',
        // the browser's own Origin header tells whether the browser uses TLS. The connection to this
        // process does not tell, because a proxy may have ended TLS.
        secure: request.headers.origin?.startsWith('https:') ?? false,
        maxAge: sessionMs,
      });
    }
    response.status(204).end();
  };

  /**
   * Makes a cookie that is valid until `until` (ms since 1970). It is signed with the token, which all
   * replicas share, so each replica accepts the cookies of the others.
   */
  #sign(until: number): string {
    const mark = createHmac('sha256', this.#token!).update(`${cookieName} ${until}`).digest('base64url');
    return `${until}.${mark}`;
  }

  #isValid(session: string): boolean {
    const until = Number(session.split('.')[0]);
    return until > Date.now() && isSame(session, this.#sign(until));
  }
}

export const tooMany = (seconds: number): string =>
  `too many wrong tokens came from your address: try again in ${seconds} s`;

/**
 * Whether the host is an IP address, localhost, or a name without dots. No foreign DNS server can resolve
 * these.
 */
function isNear(host: string): boolean {
  if (!URL.canParse(`http://${host}`)) return false;
  const { hostname } = new URL(`http://${host}`);
  return !hostname.includes('.') || isIP(hostname) > 0 || hostname.endsWith('.localhost');
}

function cookieOf(header: string): string {
  for (const pair of header.split(';')) {
    const [name, value] = pair.trim().split('=', 2);
    if (name === cookieName) return value ?? '';
  }
  return '';
}

/** Compares digests of equal length in constant time, so that the time of an answer reveals nothing. */
function isSame(given: string, wanted: string): boolean {
  const digest = (text: string) => createHash('sha256').update(text).digest();
  return timingSafeEqual(digest(given), digest(wanted));
}
