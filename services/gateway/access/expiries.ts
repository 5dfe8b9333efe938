/**
 * Ends clients when their tokens expire or are revoked: one timer, which goes by the wall clock and visits only
 * the clients of the seconds that have passed. So a clock that is set, or a machine that slept,
 * neither delays an expiry nor makes one early.
 */

import type { Identity } from './viewer.ts';

const everyMs = 500;

export interface Expiring {
  /** The client's token has expired, or was revoked. Nothing is sent to the client after this call. */
  expire(why: 'expired' | 'revoked'): void;
}

export class Expiries {
  readonly #bySecond = new Map<number, Set<Expiring>>();
  readonly #tokens = new Map<Expiring, { identity: Identity; second: number }>();
  readonly #now: () => number;
  /** the last second whose clients were visited */
  #visited: number;
  #timer: NodeJS.Timeout | undefined;

  /** @param now of the wall clock, in ms since 1970 */
  constructor(now: () => number = Date.now) {
    this.#now = now;
    this.#visited = this.#second;
  }

  start(): void {
    this.#timer ??= setInterval(() => this.tick(), everyMs);
  }

  stop(): void {
    clearInterval(this.#timer);
    this.#timer = undefined;
  }

  /** The client has this token from now on, and no other one. */
  set(client: Expiring, identity: Identity): void {
    this.delete(client);
    const second = Math.max(Math.ceil(identity.expiresAt), this.#visited + 1);
    const clients = this.#bySecond.get(second);
    if (clients) clients.add(client);
    else this.#bySecond.set(second, new Set([client]));
    this.#tokens.set(client, { identity, second });
  }

  delete(client: Expiring): void {
    const second = this.#tokens.get(client)?.second;
    if (second === undefined) return;
    this.#tokens.delete(client);
    const clients = this.#bySecond.get(second)!;
    clients.delete(client);
    if (clients.size === 0) this.#bySecond.delete(second);
  }

  /** Ends the clients with a token that was revoked. */
  revoke(isRevoked: (identity: Identity) => boolean): void {
    for (const [client, { identity }] of this.#tokens) {
      if (!isRevoked(identity)) continue;
      this.delete(client);
      client.expire('revoked');
    }
  }

  tick(): void {
    const now = this.#second;
    if (now - this.#visited <= this.#bySecond.size) for (let s = this.#visited + 1; s <= now; s++) this.#visit(s);
    else for (const second of this.#bySecond.keys()) if (second <= now) this.#visit(second);
    // also where the clock went back
    this.#visited = now;
  }

  #visit(second: number): void {
    for (const client of this.#bySecond.get(second) ?? []) {
      this.delete(client);
      client.expire('expired');
    }
  }

  get #second(): number {
    return Math.floor(this.#now() / 1_000);
  }
}
