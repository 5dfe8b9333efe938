/**
 * Two limits on the messages of one client. Points limit how much it sends: a client that spends all of
 * them is disconnected. Credit limits how much time of the event loop its messages take: the messages of
 * a client without credit wait for their turn.
 */

/**
 * A client has up to 1,000 points, and regains 40 points a second (PROTOCOL.md, "What a client may
 * send"). A frame costs one point, each kB another, and each piece in which the network delivers
 * bytes a tenth of a point.
 */
const maxPoints = 1_000;
const pointsPerMs = 40 / 1_000;
const framePoints = 1;
const bytePoints = 1 / 1_024;
const piecePoints = 0.1;
/**
 * Credit is time of the event loop. A client's messages may take up to 40 ms at once, and the client
 * regains 2 ms a second: see inbox.ts.
 */
const maxCreditMs = 40;
const creditPerMs = 2 / 1_000;

export abstract class MessageLimits {
  #points = maxPoints;
  #creditMs = maxCreditMs;
  #refilledAt = performance.now();

  /** Counts a frame from the client. False: the client has sent too much. */
  countFrame(): boolean {
    return this.#spend(framePoints);
  }

  /** Counts bytes that came in one piece. False: the client has sent too much. */
  countPiece(bytes: number): boolean {
    return this.#spend(piecePoints + bytes * bytePoints);
  }

  #spend(points: number): boolean {
    if (this.#points < points) this.#refill();
    if (this.#points < points) return false;
    this.#points -= points;
    return true;
  }

  /** Whether the client's messages have lately taken no more of the event loop than one client may take. */
  get hasCredit(): boolean {
    if (this.#creditMs <= 0) this.#refill();
    return this.#creditMs > 0;
  }

  /** Called after one of the client's messages took this much time of the event loop. */
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
