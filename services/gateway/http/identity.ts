/** Who sends a request: checked before anything of the request is read, and answered by 401 where nobody may be told. */
import type { Request, RequestHandler, Response } from 'express';
import { type Identities, TokenRefused } from '../access/identity.ts';
import { KeysUnavailable } from '../access/keys.ts';
import type { Identity } from '../access/viewer.ts';
import type { Addresses } from './address.ts';
import { PlankError } from './errors.ts';

/** How the client of a request is identified, and from which address it comes. */
export interface Identifying {
  identities: Identities;
  addresses: Addresses;
}

/** Throws PlankError, and has the header of a 401 set then. */
export async function identify(
  { identities, addresses }: Identifying,
  request: Request,
  response: Response,
): Promise<Identity> {
  const address = addresses.of(request);
  try {
    const identity = await identities.ofRequest(request, address);
    if (identity !== null) return identity;
    throw identities.refuse('missing', address);
  } catch (error) {
    if (error instanceof KeysUnavailable) throw new PlankError('KEYS_UNAVAILABLE', error.message);
    if (!(error instanceof TokenRefused)) throw error;
    response.set('WWW-Authenticate', challenge(error));
    throw new PlankError('UNAUTHORIZED', error.message);
  }
}

/** The value of `WWW-Authenticate` (RFC 6750, 3): an error is named only where there was a token. */
export const challenge = ({ reason }: TokenRefused): string =>
  reason === 'missing' ? 'Bearer' : 'Bearer error="invalid_token"';

/** Lets only requests with a valid token pass. Null: all pass. */
export function requireIdentity(identifying: Identifying | null): RequestHandler[] {
  if (identifying === null) return [];
  return [
    async (request, response, next) => {
      await identify(identifying, request, response);
      next();
    },
  ];
}
