/**
 * The current rows of a live query, by key. What must stay true: the rows never show a part of a transaction. So the
 * changes of a transaction are held until the change marked `last`, a change of another transaction, or a later
 * position arrives. Only a transaction of more than `maxHeldChanges` changes is applied in parts, because holding all
 * of its changes could fill the memory.
 */
import type { ChangeFrame, Row } from '../../shared/wire.ts';
import { canonical } from '../values/canonical.ts';
import { exactMember, exactValue } from '../values/exact.ts';
import { isUpTo } from '../values/positions.ts';
import { isSameRow } from '../values/same.ts';

/**
 * The value of the primary key, as in the `id` of a change. For a composite key, this is canonical JSON:
 * `{"a":1,"b":2}`. If JavaScript would round a number, the key is a bigint for an integer, and the string of the digits
 * for a number with a fraction.
 */
export type RowKey = string | number | bigint | boolean;

export const maxHeldChanges = 10_000;

/** @param id the `id` of a change */
export function rowKey(id: unknown): RowKey {
  return id !== null && typeof id === 'object' ? canonical(id) : (id as RowKey);
}

export class LiveRows<Item extends object = Row> {
  readonly rows = new Map<RowKey, Item>();
  /** grows whenever the rows may have changed */
  version = 0;
  #key: readonly string[];
  #held: ChangeFrame[] = [];

  /** @param key the columns of the primary key */
  constructor(key: readonly string[] = ['id']) {
    this.#key = key;
  }

  /**
   * Makes the rows those of a snapshot, and drops the held changes. If a row lacks a key column, throws. A row whose
   * values are the same stays the same object, and stays in its place in the Map. So an application that compares rows
   * by identity draws only the rows that differ.
   */
  replace(rows: readonly Item[], key: readonly string[] = this.#key): void {
    const fresh = new Map(rows.map((row) => [keyOf(row as Row, key), row] as const));
    this.#key = key;
    this.#held = [];
    for (const known of this.rows.keys()) if (!fresh.has(known)) this.rows.delete(known);
    for (const [id, row] of fresh) {
      const known = this.rows.get(id);
      if (known === undefined || !isSameRow(known as Row, row as Row)) this.rows.set(id, row);
    }
    this.version++;
  }

  /** Applies a change, or holds it. Returns whether the rows may have changed. */
  apply(change: ChangeFrame): boolean {
    const [held] = this.#held;
    const isOver = held !== undefined && held.tx !== change.tx && this.#flush();
    this.#held.push(change);
    if (change.last === true || this.#held.length >= maxHeldChanges) return this.#flush();
    return isOver;
  }

  /**
   * Handles a position: all changes up to `pos` have arrived, so a held transaction before `pos` is complete. Returns
   * whether the rows may have changed.
   */
  reach(pos: string): boolean {
    const last = this.#held.at(-1);
    return last !== undefined && !isUpTo(pos, last.pos) && this.#flush();
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
      throw new Error(`a row has no column "${column}": name the columns of its primary key, {key: […]}`);
  }
  const exact = (name: string) => exactValue(exactMember(row, name));
  return rowKey(key.length === 1 ? exact(key[0]!) : Object.fromEntries(key.map((name) => [name, exact(name)])));
}
