/**
 * Renewing the token of an open connection, so that it does not end when the token expires. The
 * timer `renew` asks the application for another token. Where none comes, or the server cannot
 * check it now, it asks again; the connection ends when the former token expires.
 */
import { limits } from './limits.ts';
import type { Transition } from './transition.ts';

/** @param seconds for which the token is valid; undefined: the server needs none */
export function awaitRenewal(to: Transition, seconds: number | undefined): void {
  if (seconds === undefined) return;
  to.setTimer('renew', Math.max(limits.renewMinMs, seconds * 1_000 * limits.renew));
}

/** The timer `renew`. */
export function askToken(to: Transition): void {
  const { link } = to.state;
  if (link.status !== 'open') return;
  // the answer to `auth` sets it to its proper time
  to.setTimer('renew', limits.renewRetryMs);
  to.effects.push({ type: 'get-token', socket: link.socket });
}

/** An open connection goes on with this token. */
export function renew(to: Transition, token: string | undefined): void {
  if (token === undefined) return;
  const id = to.state.requests + 1;
  to.set({ requests: id });
  to.send({ type: 'auth', id, token });
}
