/**
 * How long a drain may take. One that takes longer is given up, as its connection may be silent, and the next, on another
 * connection, gets twice as long: a large one comes to its end so. Nothing else makes it longer: for as long, a connection that
 * fell silent would go unnoticed.
 */

const leastMs = 4_000;
const mostMs = 600_000;

export class DrainDeadline {
  #ms = leastMs;

  get ms(): number {
    return this.#ms;
  }

  /** One that failed sooner was not too long. */
  failed(afterMs: number): void {
    if (afterMs > this.#ms / 2) this.#ms = Math.min(mostMs, this.#ms * 2);
  }

  succeeded(): void {
    this.#ms = leastMs;
  }
}
