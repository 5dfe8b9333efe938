/** What one client may send. A client that sends more is disconnected (points) or waits for its turn (credit). */

/**
 * What a client may send, in points (PROTOCOL.md, "What a client may send"): the first number at
 * once, the second comes back each ms. A frame costs one, each kB another, and each piece in which
 * the network delivers the bytes a tenth.
 */
const maxPoints = 1_000;
const pointsPerMs = 40 / 1_000;
const framePoints = 1;
const bytePoints = 1 / 1_024;
const piecePoints = 0.1;
/**
 * The time of the event loop that its messages may take at once, in ms, and how much of it comes
 * back each ms: see inbox.ts.
 */
const maxCreditMs = 40;
const creditPerMs = 2 / 1_000;

export abstract class MessageLimits {
  #points = maxPoints;
  #creditMs = maxCreditMs;
  #refilledAt = performance.now();

  /** Counts a frame that came; false: too many. */
  countFrame(): boolean {
    return this.#spend(framePoints);
  }

  /** Counts bytes that came in one piece; false: too many. */
  countPiece(bytes: number): boolean {
    return this.#spend(piecePoints + bytes * bytePoints);
  }

  #spend(points: number): boolean {
    if (this.#points < points) this.#refill();
    if (this.#points < points) return false;
    this.#points -= points;
    return true;
  }

  /** The client's messages have not taken more of the event loop lately than one client may. */
  get hasCredit(): boolean {
    if (this.#creditMs <= 0) this.#refill();
    return this.#creditMs > 0;
  }

  /** One of the client's messages took this much of the event loop. */
  spendCredit(ms: number): void {
    this.#creditMs -= ms;
  }

  #refill(): void {
    const now = performance.now();
    const elapsed = now - this.#refilledAt;
    this.#refilledAt = now;
    this.#points = Math.min(maxPoints, this.#points + elapsed * pointsPerMs);
    this.#creditMs = Math.min(maxCreditMs, this.#creditMs + elapsed * creditPerMs);
  }
}
