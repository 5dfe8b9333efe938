/**
 * Renews the token of an open connection, because the server closes the connection when the token expires. The timer
 * `renew` requests another token from the application. If the application supplies no token, or if the server cannot
 * check the token now, the timer requests a token again. If no renewal succeeds, the server closes the connection.
 */
import { limits } from './limits.ts';
import type { Transition } from './transition.ts';

/** @param seconds how long the token is still valid; undefined: the server needs no token */
export function awaitRenewal(to: Transition, seconds: number | undefined): void {
  if (seconds === undefined) return;
  to.setTimer('renew', Math.max(limits.renewMinMs, seconds * 1_000 * limits.renew));
}

/** Handles the timer `renew`. */
export function askToken(to: Transition): void {
  const { link } = to.state;
  if (link.status !== 'open') return;
  // the server's answer to `auth` sets this timer again, by the lifetime of the new token
  to.setTimer('renew', limits.renewRetryMs);
  to.effects.push({ type: 'get-token', socket: link.socket });
}

/** Sends the new token to the server. The connection stays open. */
export function renew(to: Transition, token: string | undefined): void {
  if (token === undefined) return;
  const id = to.state.requests + 1;
  to.set({ requests: id });
  to.send({ type: 'auth', id, token });
}
