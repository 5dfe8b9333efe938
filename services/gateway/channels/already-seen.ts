/**
 * The seam between a snapshot and the log after it. Some changes get their seq after the snapshot
 * was taken, because no drain had taken them yet, although the snapshot saw their transactions.
 * Those are dropped. Their number is known, so this ends.
 */
export class AlreadySeen {
  readonly #xmin: bigint;
  readonly #xmax: bigint;
  readonly #running: ReadonlySet<bigint>;
  #left: number;

  /**
   * `snapshot`: as pg_snapshot prints it, "xmin:xmax:xid,xid". `count`: number of changes to drop.
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
   * Whether the snapshot contains a change of this transaction. To be called once for each change
   * of any table, in order.
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
