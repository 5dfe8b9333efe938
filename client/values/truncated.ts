/** Rows that are too large to be sent. The SDK has only their key columns. */
import type { Row } from '../../shared/wire.ts';

const truncated = new WeakSet();

/**
 * Makes a row that has only the key columns, from the `id` of a change. `key` holds the names of the key columns. If
 * `key` is null, the names are unknown, and the row gets the column `id`.
 */
export function keyRow(id: unknown, key: readonly string[] | null): Row {
  const names = key ?? ['id'];
  const row = names.length === 1 ? Object.fromEntries([[names[0]!, id]]) : { ...(id as Row) };
  truncated.add(row);
  return row;
}

/**
 * Whether a row of a live query, a snapshot or a change was too large to be sent, and so has only its key columns.
 */
export function isTruncated(row: object): boolean {
  return truncated.has(row);
}
