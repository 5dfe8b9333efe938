/** The identity of a WebSocket's client. The upgrade, `hello` and `auth` can bring a token. The last token counts. */
import type { Seat } from '#shared/bus/shared-state.ts';
import type { Access } from '../access/access.ts';
import type { Expiring } from '../access/expiries.ts';
import { secondsLeft } from '../access/identity.ts';
import { anonymous, type Identity, type Viewer } from '../access/viewer.ts';

/** The members of `welcome`, and of the `ok` that answers an `auth`, about the client's token. */
interface Claims {
  /** `user` and `expires_in_s` are absent if there is no token */
  user?: string;
  role: string;
  expires_in_s?: number;
}

/** The part of a connection that Credentials needs. */
interface Holder extends Expiring {
  readonly address: string;
  readonly outlet: { readonly open: boolean };
}

export class Credentials {
  readonly #holder: Holder;
  readonly #access: Access;
  #identity: Identity | null = null;
  /** the seat of a user whose first token came after the upgrade; sockets.ts takes seats for tokens of upgrades */
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

  /** Replaces the client's token. Throws TokenRefused, KeysUnavailable or TooMany: then the former token stays. */
  async renew(token: string): Promise<void> {
    const identity = await this.#access.identities.ofToken(token, this.#holder.address, this.#identity);
    const seat = this.#identity === null ? await this.#access.limits.ofUser(identity.user) : null;
    // if the connection closed during the check, `end` was called already, and nothing would remove a token set now
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
