/**
 * How long a drain may take. A drain that takes longer is cancelled, because its connection may be silent.
 * The next drain, on another connection, gets twice as long, so that a large drain succeeds in the end. A
 * drain that fails early does not raise the deadline: the longer the deadline, the later a silent connection
 * is noticed.
 */

const minMs = 4_000;
const maxMs = 600_000;

export class DrainDeadline {
  #ms = minMs;

  get ms(): number {
    return this.#ms;
  }

  /** Raises the deadline, unless the drain failed so early that the deadline was not the reason. */
  failed(afterMs: number): void {
    if (afterMs > this.#ms / 2) this.#ms = Math.min(maxMs, this.#ms * 2);
  }

  succeeded(): void {
    this.#ms = minMs;
  }
}
