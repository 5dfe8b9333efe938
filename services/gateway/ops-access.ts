/**
 * Who may use the operations port. Where OPS_TOKEN is set, a request brings it (`Authorization: Bearer …`), or the cookie that a
 * browser gets for it: a page cannot put a header on its WebSockets. Whatever is set, nothing is taken from a page of another
 * origin: a browser on this machine reaches this port, and so do the pages in it. Without a token that has to include pages whose
 * own name was made to point here (DNS rebinding).
 */
import { createHash, createHmac, timingSafeEqual } from 'node:crypto';
import type { IncomingMessage } from 'node:http';
import { isIP } from 'node:net';
import type { RequestHandler } from 'express';
import { PlankError } from '#shared/errors.ts';

const cookieName = 'plank_operator';
const sessionMs = 12 * 3_600_000;

/** Why something is not taken. */
export const foreign =
  'pages of other origins may not do this; under a name with dots in it, operators are served with OPS_TOKEN only';

export class OpsAccess {
  readonly #token: string | undefined;

  constructor(token: string | undefined) {
    this.#token = token;
  }

  /** Brings the token or a cookie that was given for it, or none is needed. */
  isAdmitted(request: IncomingMessage): boolean {
    if (this.#token === undefined) return true;
    const { authorization, cookie } = request.headers;
    if (authorization !== undefined) return isSame(authorization, `Bearer ${this.#token}`);
    return this.#isValid(cookieOf(cookie ?? ''));
  }

  /** Comes from a page of this port, or from no page at all. */
  isOwn({ headers }: IncomingMessage): boolean {
    const { origin, host = '' } = headers;
    // a name of the page's own choice would be its origin as well; no such page has a cookie
    if (this.#token === undefined && !isNear(host)) return false;
    if (origin !== undefined) return URL.canParse(origin) && new URL(origin).host === host;
    // an image, say, for which browsers name no origin; a link is another matter
    return !/^(cross|same)-site$/.test(String(headers['sec-fetch-site'])) || headers['sec-fetch-mode'] === 'navigate';
  }

  /** For everything but the page itself. */
  readonly guard: RequestHandler = (request, response, next) => {
    if (!this.isOwn(request)) throw new PlankError('FORBIDDEN_ORIGIN', foreign);
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
