/**
 * The seam between a snapshot and the log behind it: changes that have a later seq than the snapshot, because they were not
 * drained yet when it was taken, and whose transaction it saw all the same. Their number is known, so this ends.
 */
export class Skip {
  readonly #xmin: bigint;
  readonly #xmax: bigint;
  readonly #running: ReadonlySet<bigint>;
  #left: number;

  /** @param snapshot as pg_snapshot prints it: "xmin:xmax:xid,xid"  @param count of changes that are to be dropped */
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

  /** Asked for each change in order, of whatever table: whether the snapshot contains it. */
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
