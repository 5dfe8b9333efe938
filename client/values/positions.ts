/** The order of positions. Pure. */
import { parsePosition } from '../../shared/wire.ts';

/** a ≤ b. Positions of different epochs have no order: false. */
export function isUpTo(a: string, b: string): boolean {
  const [left, right] = [parsePosition(a), parsePosition(b)];
  return left !== null && right !== null && left.epoch === right.epoch && left.seq <= right.seq;
}

/** The later of the two; `b` where they have no order. */
export function later(a: string | null, b: string): string {
  return a !== null && isUpTo(b, a) ? a : b;
}

export function isComparable(a: string, b: string): boolean {
  return isUpTo(a, b) || isUpTo(b, a);
}
