/**
 * Whose rights apply to a request. What must stay true: a token is checked before anything else of the request is
 * read; a token that is refused is answered by 401, and never treated as none; a request whose viewer was not found
 * is not served.
 */
import type { Request, RequestHandler, Response } from 'express';
import { type Identities, TokenRefused } from '../access/identity.ts';
import { KeysUnavailable } from '../access/keys.ts';
import { type Limits, TooMany } from '../access/limits.ts';
import type { Tickets } from '../access/tickets.ts';
import { anonymous, type Identity, type Viewer } from '../access/viewer.ts';
import type { Addresses } from './address.ts';
import { PlankError } from './errors.ts';

/** How the client of a request is identified, and from which address it comes. */
export interface Identifying {
  identities: Identities;
  addresses: Addresses;
}

/** Null: the request has no token. Throws PlankError; then the header of a 401 is set. */
export async function identify(
  { identities, addresses }: Identifying,
  request: Request,
  response: Response,
  ticket: string | null = null,
): Promise<Identity | null> {
  try {
    return await identities.ofRequest(request, addresses.of(request), ticket);
  } catch (error) {
    if (error instanceof KeysUnavailable) throw new PlankError('KEYS_UNAVAILABLE', error.message);
    if (error instanceof TooMany) throw tooMany(error);
    if (!(error instanceof TokenRefused)) throw error;
    response.set('WWW-Authenticate', challenge);
    throw new PlankError('UNAUTHORIZED', error.message);
  }
}

/** For `POST /auth/tickets`: a ticket for the token of the request. */
export function ticketHandler(identifying: Identifying, tickets: Tickets): RequestHandler {
  return async (request, response) => {
    const identity = await identify(identifying, request, response);
    if (identity === null) {
      response.set('WWW-Authenticate', 'Bearer');
      throw new PlankError('UNAUTHORIZED', 'a ticket stands for a token: send it as Authorization: Bearer');
    }
    const issued = await tickets.issue(identity).catch((cause: unknown) => {
      throw new PlankError('KEYS_UNAVAILABLE', 'tickets cannot be kept now', { cause });
    });
    response.set('Cache-Control', 'no-store').json(issued);
  };
}

/** Counts a request of REST, after `findViewer`. Null: AUTH=off. */
export function limitRequests(limits: Limits | null, addresses: Addresses | null): RequestHandler {
  return async (request, response, next) => {
    const viewer = viewerOf(response);
    if (limits && addresses && viewer)
      await limits.countRequest(viewer, addresses.of(request)).catch((error: unknown) => {
        throw error instanceof TooMany ? tooMany(error) : error;
      });
    next();
  };
}

export const tooMany = ({ message, retryAfterS }: TooMany): PlankError =>
  new PlankError('TOO_MANY', message, { retryAfterS });

/** The value of `WWW-Authenticate` where a token was refused (RFC 6750, 3). */
export const challenge = 'Bearer error="invalid_token"';

const viewers = new WeakMap<Response, Viewer | null>();

/** Finds the viewer of a request for the handlers after it. `identifying` null: AUTH=off, everything is allowed. */
export function findViewer(identifying: Identifying | null): RequestHandler {
  if (identifying === null)
    return (_request, response, next) => {
      viewers.set(response, null);
      next();
    };
  return async (request, response, next) => {
    viewers.set(response, (await identify(identifying, request, response)) ?? anonymous);
    next();
  };
}

/** Null: AUTH=off, everything is allowed. Throws where `findViewer` did not run before. */
export function viewerOf(response: Response): Viewer | null {
  const viewer = viewers.get(response);
  if (viewer === undefined) throw new Error('the viewer of this request was not found');
  return viewer;
}
