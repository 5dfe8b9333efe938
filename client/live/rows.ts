/**
 * Owns the current rows of a live query, by key. What must stay true: the rows are those of some moment at which no transaction
 * was half done. So the changes of a transaction wait for its `last`, for a change of another one, or for a position behind
 * them; only one of more than `maxHeldChanges` is applied in parts, as its size would have no bound otherwise.
 */
import { type ChangeFrame, parsePosition, type Row } from '../../shared/wire.ts';
import { canonical } from '../values/canonical.ts';
import { exactMember, exactValue } from '../values/exact.ts';

/**
 * A key's value, the `id` of its changes; of a composite key, its canonical JSON: `{"a":1,"b":2}`. A number that JavaScript would round is a
 * bigint, or the string of its digits where it has a fraction.
 */
export type RowKey = string | number | bigint | boolean;

export const maxHeldChanges = 10_000;

/** The Map key of the `id` of a change. */
export function rowKey(id: unknown): RowKey {
  return id !== null && typeof id === 'object' ? canonical(id) : (id as RowKey);
}

export class LiveRows<Item extends object = Row> {
  readonly rows = new Map<RowKey, Item>();
  /** counts up whenever the rows may have changed */
  version = 0;
  #key: readonly string[];
  #held: ChangeFrame[] = [];

  /** @param key the columns of the primary key */
  constructor(key: readonly string[] = ['id']) {
    this.#key = key;
  }

  /** A snapshot: every row. Voids what was held. */
  replace(rows: readonly Item[], key: readonly string[] = this.#key): void {
    const entries = rows.map((row) => [keyOf(row as Row, key), row] as const);
    this.#key = key;
    this.#held = [];
    this.rows.clear();
    for (const [key, row] of entries) this.rows.set(key, row);
    this.version++;
  }

  /** Answers whether the rows may have changed. */
  apply(change: ChangeFrame): boolean {
    const [held] = this.#held;
    const isOver = held !== undefined && held.tx !== change.tx && this.#flush();
    this.#held.push(change);
    if (change.last === true || this.#held.length >= maxHeldChanges) return this.#flush();
    return isOver;
  }

  /** Everything up to `pos` has come, so that a transaction before it is complete. */
  passed(pos: string): boolean {
    const last = this.#held.at(-1);
    return last !== undefined && isBehind(pos, last.pos) && this.#flush();
  }

  #flush(): boolean {
    for (const { id, data, effect } of this.#held) {
      if (effect !== 'remove') this.rows.set(rowKey(id), data as Item);
      else if (id === null) this.rows.clear();
      else this.rows.delete(rowKey(id));
    }
    this.#held = [];
    this.version++;
    return true;
  }
}

function keyOf(row: Row, key: readonly string[]): RowKey {
  for (const column of key) {
    if (!Object.hasOwn(row, column))
      throw new Error(`a row has no "${column}": say which columns are its key, {key: […]}`);
  }
  const exact = (name: string) => exactValue(exactMember(row, name));
  return rowKey(key.length === 1 ? exact(key[0]!) : Object.fromEntries(key.map((name) => [name, exact(name)])));
}

/** `pos` lies behind `other`, or in another epoch. */
function isBehind(pos: string, other: string): boolean {
  const [a, b] = [parsePosition(pos), parsePosition(other)];
  return a === null || b === null || a.epoch !== b.epoch || a.seq > b.seq;
}
