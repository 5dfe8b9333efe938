/** Rows that are too large to be sent: the SDK has their key columns only. */
import type { Row } from '../../shared/wire.ts';

const truncated = new WeakSet();

/**
 * The key columns of such a row, from the `id` of a change. `key`: null where unknown, then `id`.
 */
export function keyRow(id: unknown, key: readonly string[] | null): Row {
  const names = key ?? ['id'];
  const row = names.length === 1 ? Object.fromEntries([[names[0]!, id]]) : { ...(id as Row) };
  truncated.add(row);
  return row;
}

/**
 * Whether a row, of a live query, a snapshot or a change, is too large to be sent and has its key
 * columns only.
 */
export function isTruncated(row: object): boolean {
  return truncated.has(row);
}
