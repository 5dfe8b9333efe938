/**
 * Ends clients when their tokens expire: one timer, which goes by the wall clock and visits only
 * the clients of the seconds that have passed. So a clock that is set, or a machine that slept,
 * neither delays an expiry nor makes one early.
 */

const everyMs = 500;

export interface Expiring {
  /** The client's token has expired. */
  expire(): void;
}

export class Expiries {
  readonly #bySecond = new Map<number, Set<Expiring>>();
  readonly #secondOf = new Map<Expiring, number>();
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

  /** @param expiresAt in seconds since 1970; replaces an earlier one */
  set(client: Expiring, expiresAt: number): void {
    this.delete(client);
    const second = Math.max(Math.ceil(expiresAt), this.#visited + 1);
    const clients = this.#bySecond.get(second);
    if (clients) clients.add(client);
    else this.#bySecond.set(second, new Set([client]));
    this.#secondOf.set(client, second);
  }

  delete(client: Expiring): void {
    const second = this.#secondOf.get(client);
    if (second === undefined) return;
    this.#secondOf.delete(client);
    const clients = this.#bySecond.get(second)!;
    clients.delete(client);
    if (clients.size === 0) this.#bySecond.delete(second);
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
      client.expire();
    }
  }

  get #second(): number {
    return Math.floor(this.#now() / 1_000);
  }
}
