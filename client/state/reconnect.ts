/** Whether to connect again after a close, and how long to wait before that. Pure. */
import { closeCodes } from '../../shared/wire.ts';
import { limits } from './limits.ts';

/**
 * Whether another attempt would end in the same way. 4408 would not: the SDK always sends a hello,
 * so that one was late (a frozen page).
 */
export function isFinal(code: number): boolean {
  if (code === closeCodes.noHello) return false;
  return (code >= 4400 && code < 4500) || code === closeCodes.tooLarge;
}

/**
 * Full jitter: `minWaitMs` to a ceiling, in ms. The ceiling doubles with each failure, up to
 * `maxWaitMs`.
 * @param random 0 ≤ random < 1
 */
export function jitter(failures: number, random: number): number {
  const ceiling = Math.min(limits.maxWaitMs, limits.minWaitMs * 2 ** (failures + 1));
  return Math.round(limits.minWaitMs + random * (ceiling - limits.minWaitMs));
}
