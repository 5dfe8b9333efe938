import type { Claims } from './claims.ts';

/** The user and role whose rights apply to a connection, an event stream or a request. */
export interface Viewer {
  /** the claim `sub`; null: there is no token */
  readonly user: string | null;
  readonly role: string;
  /** all claims of the token */
  readonly claims: Claims;
}

/** With AUTH=jwt, a client without a token. It has the rights of policies for the role `anonymous`, and no others. */
export const anonymous: Viewer = { user: null, role: 'anonymous', claims: {} };

/** A client with a valid token. */
export interface Identity extends Viewer {
  readonly user: string;
  /** the claim `jti`; null: the token has none */
  readonly tokenId: string | null;
  /** in seconds since 1970; 0: the token does not say when it was issued */
  readonly issuedAt: number;
  /** in seconds since 1970 */
  readonly expiresAt: number;
}
