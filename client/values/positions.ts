/** The order of positions. Pure. */
import { parsePosition } from '../../shared/wire.ts';

/** Whether a ≤ b. Positions of different epochs have no order, so for these the result is false. */
export function isUpTo(a: string, b: string): boolean {
  const [left, right] = [parsePosition(a), parsePosition(b)];
  return left !== null && right !== null && left.epoch === right.epoch && left.seq <= right.seq;
}

/** The later one of two positions. If the positions have no order, returns `b`. */
export function later(a: string | null, b: string): string {
  return a !== null && isUpTo(b, a) ? a : b;
}

export function isComparable(a: string, b: string): boolean {
  return isUpTo(a, b) || isUpTo(b, a);
}
