/**
 * The seam between a snapshot and the log after it. The snapshot may contain changes that have no
 * seq yet, because no drain had taken them. These changes come later in the log, and are dropped
 * there. Their number is known, so the dropping ends.
 */
export class AlreadySeen {
  readonly #xmin: bigint;
  readonly #xmax: bigint;
  readonly #running: ReadonlySet<bigint>;
  #left: number;

  /**
   * `snapshot`: a pg_snapshot as text, "xmin:xmax:xid,xid". `count`: number of changes to drop.
   */
  constructor(snapshot: string, count: number) {
    const [xmin = '0', xmax = '0', running = ''] = snapshot.split(':');
    this.#xmin = BigInt(xmin);
    this.#xmax = BigInt(xmax);
    this.#running = new Set(running === '' ? [] : running.split(',').map(BigInt));
    this.#left = count;
  }

  get done(): boolean {
    return this.#left <= 0;
  }

  /**
   * Whether to drop this transaction's next change, as the snapshot contains it. The caller must
   * call this once for each change of every table, in order, because it counts.
   */
  drops(xid: bigint): boolean {
    if (this.done || !this.saw(xid)) return false;
    this.#left--;
    return true;
  }

  /** Whether the transaction had committed when the snapshot was taken. */
  saw(xid: bigint): boolean {
    return xid < this.#xmin || (xid < this.#xmax && !this.#running.has(xid));
  }
}
