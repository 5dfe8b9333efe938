/**
 * One timer checks all connections periodically. The connections are spread over slots, and each
 * tick checks one slot, so that each connection is checked once in an interval.
 */

export class PingWheel<C> {
  readonly #slots: Set<C>[];
  readonly #tickMs: number;
  readonly #check: (connection: C, now: number) => void;
  #next = 0;
  #current = 0;
  #timer: NodeJS.Timeout | undefined;

  constructor(intervalMs: number, check: (connection: C, now: number) => void) {
    const ticks = Math.max(1, Math.min(100, Math.round(intervalMs / 250)));
    this.#tickMs = intervalMs / ticks;
    this.#slots = Array.from({ length: ticks }, () => new Set<C>());
    this.#check = check;
  }

  start(): void {
    this.#timer ??= setInterval(() => {
      const now = performance.now();
      for (const connection of this.#slots[this.#current]!) this.#check(connection, now);
      this.#current = (this.#current + 1) % this.#slots.length;
    }, this.#tickMs);
  }

  stop(): void {
    clearInterval(this.#timer);
    this.#timer = undefined;
  }

  /** Returns the connection's slot, which `remove` needs. */
  add(connection: C): number {
    const slot = this.#next;
    this.#next = (slot + 1) % this.#slots.length;
    this.#slots[slot]!.add(connection);
    return slot;
  }

  remove(connection: C, slot: number): void {
    this.#slots[slot]!.delete(connection);
  }
}
