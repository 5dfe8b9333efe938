// Owns the log of the model of Plank: the committed entries, the entries that a fork of the database's history undid, and how far
// back the log reaches. A position is `e<epoch>.<count>`: the number of entries up to there, in the epoch of the last one.

export interface Entry {
  epoch: number;
  table: string;
  action: 'INSERT' | 'UPDATE' | 'DELETE' | 'TRUNCATE';
  id: number | null;
  value: number;
  tx: string;
  last: boolean;
}

export const tables = ['items', 'orders'];

export class ModelLog {
  readonly entries: Entry[] = [];
  #epoch = 1;
  /** by ended epoch: how many entries of its history are valid */
  readonly #ends = new Map<number, number>();
  /** entries before it are no longer kept */
  #floor = 0;

  get length(): number {
    return this.entries.length;
  }

  get floor(): number {
    return this.#floor;
  }

  /** Appends one transaction of one to three changes, which the two numbers choose. */
  write(a: number, b: number): void {
    const tx = String(this.length);
    const count = 1 + (a % 3);
    for (let i = 0; i < count; i++) {
      const table = tables[(b + i * a) % 2]!;
      const id = (a + i) % 6;
      const had = this.fold(table, this.length).has(id);
      const action = b % 11 === 0 ? 'TRUNCATE' : !had ? 'INSERT' : b % 3 === 0 ? 'DELETE' : 'UPDATE';
      const value = this.length * 10 + i;
      const last = i === count - 1;
      this.entries.push({ epoch: this.#epoch, table, action, id: action === 'TRUNCATE' ? null : id, value, tx, last });
    }
  }

  trim(count: number): void {
    this.#floor = Math.min(this.length, this.#floor + count);
  }

  /** The database's history forks, and its last entries are lost. */
  fork(lost: number): void {
    this.entries.length = Math.max(this.#floor, this.length - lost);
    for (let epoch = 1; epoch <= this.#epoch; epoch++)
      this.#ends.set(epoch, Math.min(this.#ends.get(epoch) ?? Number.MAX_SAFE_INTEGER, this.length));
    this.#epoch++;
  }

  posAt(count: number): string {
    return `e${this.entries[count - 1]?.epoch ?? 1}.${count}`;
  }

  /** The position of a replica with so many entries. From the fork on, it is of the new epoch. */
  present(count: number): string {
    const isNew = count >= (this.#ends.get(this.#epoch - 1) ?? 0);
    return isNew ? `e${this.#epoch}.${count}` : this.posAt(count);
  }

  /** The number of entries up to a position, or why it is not valid. */
  countOf(pos: string): number | 'epoch' | 'retention' {
    const [epoch, count] = pos.slice(1).split('.').map(Number) as [number, number];
    if (epoch > this.#epoch || (epoch < this.#epoch && count > this.#ends.get(epoch)!)) return 'epoch';
    return count < this.#floor ? 'retention' : count;
  }

  /** The rows of a table after so many entries: id → value. */
  fold(table: string, count: number): Map<number, number> {
    const rows = new Map<number, number>();
    for (const entry of this.entries.slice(0, count)) {
      if (entry.table !== table) continue;
      if (entry.id === null) rows.clear();
      else if (entry.action === 'DELETE') rows.delete(entry.id);
      else rows.set(entry.id, entry.value);
    }
    return rows;
  }
}
