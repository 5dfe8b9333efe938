/** Decides whether to connect again after a close, and how long to wait before the next attempt. Pure. */
import { closeCodes } from '../../shared/wire.ts';
import { limits } from './limits.ts';
import type { State } from './model.ts';

/**
 * Whether the server would close a new connection for the same reason. 4408 (no hello) is not final: the SDK always
 * sends a hello, so the hello was only late (a frozen page). 4401 (token refused) is not final at first: the token may
 * have expired, and the application can supply another one. Attempts that failed for other reasons do not count: a
 * token may expire while the network is away.
 */
export function isFinal(code: number, { link, refusals }: State): boolean {
  if (code === closeCodes.noHello) return false;
  if (code === closeCodes.unauthorized) return link.status !== 'open' && refusals + 1 >= limits.tokenAttempts;
  return (code >= 4400 && code < 4500) || code === closeCodes.tooLarge;
}

/**
 * Returns a random wait in ms, from `minWaitMs` to a ceiling ("full jitter"). The ceiling doubles with each failure, up
 * to `maxWaitMs`.
 * @param random 0 ≤ random < 1
 */
export function jitter(failures: number, random: number): number {
  const ceiling = Math.min(limits.maxWaitMs, limits.minWaitMs * 2 ** (failures + 1));
  return Math.round(limits.minWaitMs + random * (ceiling - limits.minWaitMs));
}
