/** Whom a WebSocket serves: the token of its upgrade, of `hello` or of `auth`, the last of which counts. */
import type { Seat } from '#shared/bus/shared-state.ts';
import type { Access } from '../access/access.ts';
import type { Expiring } from '../access/expiries.ts';
import { secondsLeft } from '../access/identity.ts';
import { anonymous, type Identity, type Viewer } from '../access/viewer.ts';

/** What `welcome` and the `ok` of an `auth` say of a client. */
interface Claims {
  /** absent, as `expires_in_s` is: there is no token */
  user?: string;
  role: string;
  expires_in_s?: number;
}

/** Of a connection. */
interface Holder extends Expiring {
  readonly address: string;
  readonly outlet: { readonly open: boolean };
}

export class Credentials {
  readonly #holder: Holder;
  readonly #access: Access;
  #identity: Identity | null = null;
  /** of a user whose token came after the upgrade */
  #seat: Seat | null = null;

  /** @param identity null: the upgrade brought no token */
  constructor(holder: Holder, access: Access, identity: Identity | null) {
    this.#holder = holder;
    this.#access = access;
    if (identity !== null) this.#take(identity);
  }

  get viewer(): Viewer {
    return this.#identity ?? anonymous;
  }

  /** When the token expires, in seconds since 1970; null: there is no token. */
  get expiresAt(): number | null {
    return this.#identity?.expiresAt ?? null;
  }

  get claims(): Claims {
    if (this.#identity === null) return { role: anonymous.role };
    const { user, role } = this.#identity;
    return { user, role, expires_in_s: secondsLeft(this.#identity) };
  }

  /** Throws TokenRefused, KeysUnavailable or TooMany; then the former token stays. */
  async renew(token: string): Promise<void> {
    const identity = await this.#access.identities.ofToken(token, this.#holder.address, this.#identity);
    const seat = this.#identity === null ? await this.#access.limits.ofUser(identity.user) : null;
    // a connection that has closed meanwhile is no longer among those that expire
    if (!this.#holder.outlet.open) return seat?.leave();
    this.#seat ??= seat;
    this.#take(identity);
  }

  end(): void {
    this.#access.expiries.delete(this.#holder);
    this.#seat?.leave();
  }

  #take(identity: Identity): void {
    this.#identity = identity;
    this.#access.admit(this.#holder, identity);
  }
}
