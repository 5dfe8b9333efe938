/**
 * Makes the tokens by which Plank knows the users. A real application checks a password or a session first. Here
 * a click on a name is enough, so nobody but the person who tries the example should reach this server.
 */
import { SignJWT } from 'jose';

const users = ['ada', 'bob'];
const lifetime = '10 minutes';

/** @param secret the AUTH_JWT_SECRET of the gateway: at least 32 bytes */
export class Tokens {
  readonly #key: Uint8Array;

  constructor(secret: string) {
    this.#key = new TextEncoder().encode(secret);
  }

  /** Null: there is no such user. */
  async of(user: string): Promise<string | null> {
    if (!users.includes(user)) return null;
    const token = new SignJWT().setProtectedHeader({ alg: 'HS256' }).setSubject(user);
    return token.setIssuedAt().setExpirationTime(lifetime).sign(this.#key);
  }
}
