/**
 * Ends clients when their tokens expire or are revoked. One timer serves all clients. At each tick, the timer reads
 * the wall clock and visits only the clients of the seconds that have passed. So an expiry is neither late nor early
 * after the clock was set or the machine slept.
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

  /** @param now returns the time of the wall clock, in ms since 1970 */
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

  /** Sets the client's token, instead of the client's former token. */
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

  /** Ends the clients for whose token `isRevoked` returns true. */
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
    // this is right also if the clock was set back
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
