/**
 * Renews the token of an open connection, because the server closes the connection when the token expires. The timer
 * `renew` requests another token from the application. If the application supplies no token, or if the server cannot
 * check the token now, the timer requests a token again. If no renewal succeeds, the server closes the connection.
 */
import type { OkFrame, WelcomeFrame } from '../../shared/wire.ts';
import { limits } from './limits.ts';
import type { Viewer } from './model.ts';
import type { Transition } from './transition.ts';

/** Returns null if the server checks no tokens, or if the frame does not answer a hello or an `auth`. */
export function viewerOf({ user, role, expires_in_s }: WelcomeFrame | OkFrame, now: number): Viewer | null {
  if (role === undefined) return null;
  return { user: user ?? null, role, expiresAt: expires_in_s === undefined ? null : now + 1_000 * expires_in_s };
}

/** Handles the answer to `auth`: the server serves the connection under the new token. */
export function onRenewed(to: Transition, frame: OkFrame): void {
  const { link } = to.state;
  const viewer = viewerOf(frame, to.world.now);
  if (viewer === null || link.status !== 'open') return;
  to.move({ ...link, viewer });
  awaitRenewal(to, frame.expires_in_s);
}

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
