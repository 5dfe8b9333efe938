/** Owns which rows are too large to be sent: of those there is the key and nothing else. */
import type { Row } from '../../shared/wire.ts';

const truncated = new WeakSet();

/** What there is of a row that is too large: its key columns. */
export function keyRow(id: unknown, key: readonly string[] | null): Row {
  const names = key ?? ['id'];
  const row = names.length === 1 ? Object.fromEntries([[names[0]!, id]]) : { ...(id as Row) };
  truncated.add(row);
  return row;
}

/** Whether a row (of a live query, a snapshot or a change) is too large to be sent, and has its key columns only. */
export function isTruncated(row: object): boolean {
  return truncated.has(row);
}
