/**
 * Who may use the operations port. Where OPS_TOKEN is set, a request brings it (`Authorization: Bearer …`), or the cookie that a
 * browser gets for it: a page cannot put a header on its WebSockets. Whatever is set, nothing is taken from a page of another
 * origin: a browser on this machine reaches this port, and so do the pages in it. Without a token that has to include pages whose
 * own name was made to point here (DNS rebinding).
 */
import { createHash, createHmac, timingSafeEqual } from 'node:crypto';
import type { IncomingMessage } from 'node:http';
import { BlockList, isIP, isIPv6 } from 'node:net';
import type { RequestHandler } from 'express';
import { forwardedFor } from '../clients/connection.ts';
import { PlankError } from '../http/errors.ts';
import { Guesses } from './token-guesses.ts';

const cookieName = 'plank_operator';
const sessionMs = 12 * 3_600_000;

/** Why something is not taken. */
export const foreign =
  'pages of other origins may not do this; under a name with dots in it, operators are served with OPS_TOKEN only';

export class OpsAccess {
  readonly #token: string | undefined;
  readonly #guesses = new Guesses();

  constructor(token: string | undefined) {
    this.#token = token;
  }

  /** So long no token of the asker's is judged, after too many that were wrong; 0: it is. To be asked before isAdmitted. */
  secondsUntilJudged(request: IncomingMessage): number {
    const isJudged = this.#token === undefined || request.headers.authorization === undefined;
    return isJudged ? 0 : this.#guesses.waitSeconds(askerOf(request));
  }

  /** Brings the token or a cookie that was given for it, or none is needed. */
  isAdmitted(request: IncomingMessage): boolean {
    if (this.#token === undefined) return true;
    const { authorization, cookie } = request.headers;
    if (authorization !== undefined) {
      const isRight = isSame(authorization, `Bearer ${this.#token}`);
      this.#guesses.count(askerOf(request), isRight);
      return isRight;
    }
    return this.#isValid(cookieOf(cookie ?? ''));
  }

  /** Comes from a page of this port, or from no page at all. */
  isOwn({ headers, method }: IncomingMessage): boolean {
    const { origin, host = '', 'content-type': type = '' } = headers;
    // a name of the page's own choice would be its origin as well; no such page has a cookie
    if (this.#token === undefined && !isNear(host)) return false;
    if (origin !== undefined) return URL.canParse(origin) && new URL(origin).host === host;
    // an image, say, for which browsers name no origin; a link is another matter
    const isForeign = /^(cross|same)-site$/.test(String(headers['sec-fetch-site']));
    if (method === 'GET' || method === 'HEAD') return !isForeign || headers['sec-fetch-mode'] === 'navigate';
    // a browser that says neither still says what a form of another page is sent as
    return !isForeign && !/^(application\/x-www-form-urlencoded|multipart\/form-data|text\/plain)\b/i.test(type);
  }

  /** For everything but the page itself. */
  readonly guard: RequestHandler = (request, response, next) => {
    if (!this.isOwn(request)) throw new PlankError('FORBIDDEN_ORIGIN', foreign);
    const seconds = this.secondsUntilJudged(request);
    if (seconds > 0) {
      response.set('Retry-After', String(seconds));
      throw new PlankError('TOO_MANY_GUESSES', tooMany(seconds));
    }
    if (this.isAdmitted(request)) return next();
    response.set('WWW-Authenticate', 'Bearer');
    throw new PlankError('UNAUTHORIZED', "this needs the operators' token (OPS_TOKEN)");
  };

  /** Gives a browser that brought the token a cookie for its WebSockets and what follows. Behind `guard`. */
  readonly open: RequestHandler = (request, response) => {
    if (this.#token !== undefined) {
      response.cookie(cookieName, this.#sign(Date.now() + sessionMs), {
        httpOnly: true,
        sameSite: 'strict',
        // the browser's own word for how it came, however many proxies are in front, the first of which ends TLS
        secure: request.headers.origin?.startsWith('https:') ?? false,
        maxAge: sessionMs,
      });
    }
    response.status(204).end();
  };

  /** All replicas have the same token, so any of them knows the cookie. */
  #sign(until: number): string {
    const mark = createHmac('sha256', this.#token!).update(`${cookieName} ${until}`).digest('base64url');
    return `${until}.${mark}`;
  }

  #isValid(session: string): boolean {
    const until = Number(session.split('.')[0]);
    return until > Date.now() && isSame(session, this.#sign(until));
  }
}

export const tooMany = (seconds: number): string => `too many wrong tokens came from here: try again in ${seconds} s`;

/** Where the request is from. What a proxy says of it counts where the proxy is near: anybody else could say what he likes. */
function askerOf(request: IncomingMessage): string {
  const peer = (request.socket.remoteAddress ?? '').replace(/^::ffff:/, '');
  return (near.check(peer, isIPv6(peer) ? 'ipv6' : 'ipv4') ? forwardedFor(request) : null) ?? peer;
}

const near = new BlockList();
for (const [network, bits] of [
  ['127.0.0.0', 8],
  ['10.0.0.0', 8],
  ['172.16.0.0', 12],
  ['192.168.0.0', 16],
  ['169.254.0.0', 16],
] as const)
  near.addSubnet(network, bits, 'ipv4');
near.addAddress('::1', 'ipv6');
near.addSubnet('fc00::', 7, 'ipv6');
near.addSubnet('fe80::', 10, 'ipv6');

/** An address, localhost, or a name without dots, none of which somebody else's DNS answers for. */
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

/** Compared by digests of equal length, so that the comparison tells nothing by its time. */
function isSame(given: string, wanted: string): boolean {
  const digest = (text: string) => createHash('sha256').update(text).digest();
  return timingSafeEqual(digest(given), digest(wanted));
}
