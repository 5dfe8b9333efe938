/** Whether to come back to a server, and after how long. Pure. */
import { closeCodes } from '../../shared/wire.ts';
import { limits } from './model.ts';

/** Whether coming back would meet the same answer. A hello is always sent: it came late, as from a page that was frozen just then. */
export function isFinal(code: number): boolean {
  if (code === closeCodes.noHello) return false;
  return (code >= 4400 && code < 4500) || code === closeCodes.tooLarge;
}

/** `ceiling` doubles with each failure, up to `limits.maxWaitMs`; the wait is anywhere below it. */
export function jitter(failures: number, random: number): number {
  const ceiling = Math.min(limits.maxWaitMs, limits.minWaitMs * 2 ** (failures + 1));
  return Math.round(limits.minWaitMs + random * (ceiling - limits.minWaitMs));
}
