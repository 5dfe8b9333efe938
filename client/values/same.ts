/** Whether two rows, as the server sent them, have the same values. Pure. */
import type { Row } from '../../shared/wire.ts';
import { isTruncated } from './truncated.ts';

/** values that are nested deeper than this count as different, because comparing them could overflow the stack */
const maxDepth = 100;

export function isSameRow(one: Row, other: Row): boolean {
  return isTruncated(one) === isTruncated(other) && isSame(one, other, 0);
}

/** Compares values of JSON, or bigints. The order of an object's members has no meaning. */
function isSame(one: unknown, other: unknown, depth: number): boolean {
  if (one === other) return true;
  if (one === null || other === null || typeof one !== 'object' || typeof other !== 'object') return false;
  if (Array.isArray(one) !== Array.isArray(other) || depth >= maxDepth) return false;
  const names = Object.keys(one);
  if (names.length !== Object.keys(other).length) return false;
  return names.every(
    (name) => Object.hasOwn(other, name) && isSame(one[name as never], other[name as never], depth + 1),
  );
}
