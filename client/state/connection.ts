/**
 * Makes, loses and ends the connection. What must stay true: There is one socket at a time. After a failure, there is
 * always a wait before the next attempt. The waits grow until a connection was stable (`limits.stableMs`).
 */
import { closeCodes, type WelcomeFrame } from '../../shared/wire.ts';
import { beginFresh } from './freshness.ts';
import { limits } from './limits.ts';
import { jitter } from './reconnect.ts';
import { awaitRenewal, viewerOf } from './renewal.ts';
import { disconnect, requestStream } from './stream.ts';
import { answerTimer, retryTimer, type Transition } from './transition.ts';

/** idle, waiting → connecting */
export function connect(to: Transition): void {
  const socket = to.state.sockets + 1;
  to.set({ sockets: socket });
  to.move({ status: 'connecting', socket, hasSocket: false, startedAt: to.world.now });
  to.setTimer('connect', limits.connectMs);
  to.effects.push({ type: 'get-token', socket });
}

/** connecting → connecting, now with the token and with a socket that opens */
export function openSocket(to: Transition, token: string | undefined): void {
  const { link } = to.state;
  if (link.status !== 'connecting' || link.hasSocket) return;
  to.set({ link: { ...link, hasSocket: true, ...(token === undefined ? {} : { token }) } });
  to.effects.push({ type: 'connect', socket: link.socket });
}

/**
 * connecting → opening. The requests to subscribe are sent right after the hello, without waiting for the `welcome`.
 * If the page was frozen while the socket opened, the token may have expired. Then another token is requested.
 */
export function sendHello(to: Transition): void {
  const { link } = to.state;
  if (link.status !== 'connecting' || !link.hasSocket) return;
  const { socket, token, startedAt } = link;
  if (to.world.now - startedAt > limits.connectMs) return reconnectLater(to);
  to.move({ status: 'opening', socket });
  to.send(token === undefined ? { type: 'hello' } : { type: 'hello', token });
  to.putAll((group) => requestStream(group, to));
}

/** opening → open */
export function openConnection(to: Transition, socket: number, frame: WelcomeFrame): void {
  const { now } = to.world;
  to.clearTimer('connect');
  const viewer = viewerOf(frame, now);
  to.set({ isUnreachable: false, refusals: 0, checksTokens: viewer !== null });
  to.move({
    status: 'open',
    socket,
    node: frame.node,
    connection: frame.connection ?? null,
    viewer,
    pingMs: frame.ping_ms,
    openedAt: now,
    receivedAt: now,
    contentAt: null,
    freshness: beginFresh(frame.pos_ms, now),
    deadAt: null,
    returnAt: null,
  });
  awaitRenewal(to, frame.expires_in_s);
}

/**
 * connecting, opening, open → waiting. After a `drain`, the wait ends exactly when the server announced; otherwise the
 * wait has jitter.
 */
export function reconnectLater(to: Transition, why = 'no answer'): void {
  const { link } = to.state;
  const { now, random } = to.world;
  const isStable = link.status === 'open' && now - link.openedAt >= limits.stableMs;
  const attempts = isStable ? 0 : to.state.attempts;
  const isDrained = link.status === 'open' && link.returnAt !== null && now < link.returnAt + limits.drainMs;
  const returnAt = isDrained ? link.returnAt : null;
  const waitMs = returnAt === null ? jitter(attempts, random) : Math.max(0, returnAt - now);
  dropSocket(to);
  to.set({ attempts: returnAt === null ? attempts + 1 : attempts });
  if (link.status !== 'open' && !to.state.isUnreachable) {
    to.set({ isUnreachable: true });
    const progress = `attempt ${to.state.attempts} failed, the next one is in ${waitMs} ms`;
    to.report(`no connection to Plank (${why}): ${progress}`, 'UNREACHABLE');
  }
  to.move({ status: 'waiting', waitMs });
  to.setTimer('reconnect', waitMs);
  to.putAll((group) => group); // delivers the state `offline` to all members
}

/** any → closed. `code`: the server's close code; null: the application closed the client. */
export function closeForGood(to: Transition, code: number | null, reason: string): void {
  dropSocket(to);
  to.clearTimer('reconnect');
  to.move({ status: 'closed', code, reason });
  if (code !== null) to.report(closedBy(code, reason), errorOf(code));
  for (const group of to.state.groups.values()) {
    for (const { id } of group.members.values()) endMember(to, id);
  }
  to.set({ groups: new Map() });
}

/**
 * Ends a subscription of a closed client. If the server closed the connection, the subscription ends with an error. If
 * the application closed the client, the subscription ends without an error.
 */
export function endMember(to: Transition, member: number): void {
  const { link } = to.state;
  if (link.status !== 'closed') return;
  if (link.code === null) to.deliver(member, { kind: 'state', state: 'ended' });
  else to.deliver(member, { kind: 'error', code: errorOf(link.code), message: closedBy(link.code, link.reason) });
}

function errorOf(code: number): 'UNAUTHORIZED' | 'FORBIDDEN' | 'CLOSED' {
  if (code === closeCodes.unauthorized) return 'UNAUTHORIZED';
  return code === closeCodes.forbidden ? 'FORBIDDEN' : 'CLOSED';
}

function closedBy(code: number, reason: string): string {
  return `the server closed the connection for good with ${code}${reason ? `: ${reason}` : ''}`;
}

/** Ends everything that belonged to the socket: timers, requests and streams. */
function dropSocket(to: Transition): void {
  for (const name of ['connect', 'liveness', 'stale', 'renew']) to.clearTimer(name);
  for (const { key, stream } of to.state.groups.values()) {
    if (stream.phase === 'retrying') to.clearTimer(retryTimer + key);
    if ('request' in stream) to.clearTimer(answerTimer + stream.request);
  }
  to.effects.push({ type: 'close-socket' });
  const groups = new Map([...to.state.groups].map(([key, group]) => [key, disconnect(group)]));
  to.set({ groups });
}
