// Owns the log of the model of Plank: what was committed, which of it a fork of the database's history undid, and how far back it
// reaches. A position is `e<epoch>.<count>`: the number of entries up to there, in the epoch of the last of them.

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
  /** how many entries of an ended epoch's history stayed */
  readonly #ends = new Map<number, number>();
  /** what is before it is gone */
  #floor = 0;

  get length(): number {
    return this.entries.length;
  }

  get floor(): number {
    return this.#floor;
  }

  /** One transaction, of one to three changes; the two numbers choose which. */
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

  /** The database's history forks: its last entries are no more. */
  fork(lost: number): void {
    this.entries.length = Math.max(this.#floor, this.length - lost);
    for (let epoch = 1; epoch <= this.#epoch; epoch++)
      this.#ends.set(epoch, Math.min(this.#ends.get(epoch) ?? Number.MAX_SAFE_INTEGER, this.length));
    this.#epoch++;
  }

  posAt(count: number): string {
    return `e${this.entries[count - 1]?.epoch ?? 1}.${count}`;
  }

  /** Where a replica is that has so many entries: from the fork on it speaks of the new epoch. */
  present(count: number): string {
    const isNew = count >= (this.#ends.get(this.#epoch - 1) ?? 0);
    return isNew ? `e${this.#epoch}.${count}` : this.posAt(count);
  }

  /** How many entries a position stands for, or why it stands for none. */
  countOf(pos: string): number | 'epoch' | 'retention' {
    const [epoch, count] = pos.slice(1).split('.').map(Number) as [number, number];
    if (epoch > this.#epoch || (epoch < this.#epoch && count > this.#ends.get(epoch)!)) return 'epoch';
    return count < this.#floor ? 'retention' : count;
  }

  /** The rows of a table after so many entries: value by id. */
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
