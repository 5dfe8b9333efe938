/**
 * Finds the viewer whose rights apply to a request. What must stay true:
 * - The token of a request is checked before anything else of the request is read.
 * - A request with a refused token gets a 401. It is never treated as a request without a token.
 * - A request is served only after its viewer was found.
 */
import type { Request, RequestHandler, Response } from 'express';
import { type Identities, TokenRefused } from '../access/identity.ts';
import { KeysUnavailable } from '../access/keys.ts';
import { type Limits, TooMany } from '../access/limits.ts';
import type { Tickets } from '../access/tickets.ts';
import { anonymous, type Identity, type Viewer } from '../access/viewer.ts';
import type { Addresses } from './address.ts';
import { PlankError } from './errors.ts';

/** Used to find the identity and the address of a request's client. */
export interface Identifying {
  identities: Identities;
  addresses: Addresses;
}

/** Null: the request has no token. Throws PlankError; for a 401, sets the header WWW-Authenticate before. */
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

/** For `POST /auth/tickets`: answers with a ticket that stands for the token of the request. */
export function ticketHandler(identifying: Identifying, tickets: Tickets, limits: Limits | null): RequestHandler {
  return async (request, response) => {
    const identity = await identify(identifying, request, response);
    if (identity === null) {
      response.set('WWW-Authenticate', 'Bearer');
      throw new PlankError('UNAUTHORIZED', 'a ticket stands for a token: send it as Authorization: Bearer');
    }
    // each ticket is kept for a while
    if (limits) await countRequest(limits, identity, identifying.addresses.of(request));
    const issued = await tickets.issue(identity).catch((cause: unknown) => {
      throw new PlankError('KEYS_UNAVAILABLE', 'tickets cannot be kept now', { cause });
    });
    response.set('Cache-Control', 'no-store').json(issued);
  };
}

/** Counts a request of REST against the limits. Runs after `findViewer`. Null: AUTH=off, and nothing is counted. */
export function limitRequests(limits: Limits | null, addresses: Addresses | null): RequestHandler {
  return async (request, response, next) => {
    const viewer = viewerOf(response);
    if (limits && addresses && viewer) await countRequest(limits, viewer, addresses.of(request));
    next();
  };
}

/** Throws PlankError. */
async function countRequest(limits: Limits, viewer: Viewer, address: string): Promise<void> {
  try {
    await limits.countRequest(viewer, address);
  } catch (error) {
    throw error instanceof TooMany ? tooMany(error) : error;
  }
}

export const tooMany = ({ message, retryAfterS }: TooMany): PlankError =>
  new PlankError('TOO_MANY', message, { retryAfterS });

/** The value of `WWW-Authenticate` if a token was refused (RFC 6750, section 3). */
export const challenge = 'Bearer error="invalid_token"';

const viewers = new WeakMap<Response, Viewer | null>();

/** Finds the viewer of a request for later handlers. `identifying` null: AUTH=off, and everything is allowed. */
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

/** The viewer of a request. Null: AUTH=off, and everything is allowed. Throws if `findViewer` did not run before. */
export function viewerOf(response: Response): Viewer | null {
  const viewer = viewers.get(response);
  if (viewer === undefined) throw new Error('the viewer of this request was not found');
  return viewer;
}
