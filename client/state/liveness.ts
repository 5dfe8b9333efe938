/**
 * Checks whether the server still answers, and whether changes can still arrive. There are three timers:
 *
 *   liveness   if no frame comes for `ping_ms`, sends a ping; if no frame follows, gives the connection up
 *   stale      if no change and no `pos` comes in time, subscriptions become `stale` (freshness.ts)
 *   answer n   if request n gets no answer, and no other content comes, gives the connection up
 *
 * What must stay true: a silent connection is given up only after the server had time to answer a ping. Without the
 * ping, a timer that is late (a hidden page, a machine that slept) would look like a silent server.
 */
import type { ServerFrame } from '../../shared/wire.ts';
import { connect, reconnectLater } from './connection.ts';
import { type Freshness, judge, refresh } from './freshness.ts';
import { limits } from './limits.ts';
import { answerTimer, type Transition } from './transition.ts';

/** Starts the timers of a connection that has just opened. */
export function watch(to: Transition): void {
  const { link } = to.state;
  if (link.status !== 'open') return;
  to.setTimer('liveness', link.pingMs);
  awaitPosition(to);
}

/** Any frame is a sign of life. */
export function onSignOfLife(to: Transition, frame: ServerFrame): void {
  const { link } = to.state;
  if (link.status !== 'open') return;
  const { now } = to.world;
  const contentAt = frame.type === 'pong' || frame.type === 'pos' ? link.contentAt : now;
  to.set({ link: { ...link, receivedAt: now, contentAt, deadAt: null } });
  if (frame.type === 'change' || frame.type === 'pos' || frame.type === 'live')
    setFreshness(to, refresh(link.freshness, now));
}

/** Handles the timer `liveness`. */
export function checkLiveness(to: Transition): void {
  const { link } = to.state;
  if (link.status !== 'open') return;
  const { now } = to.world;
  if (link.deadAt !== null) {
    if (now >= link.deadAt) return reconnectLater(to);
    return to.setTimer('liveness', link.deadAt - now);
  }
  const silenceMs = now - link.receivedAt;
  if (silenceMs < link.pingMs) return to.setTimer('liveness', link.pingMs - silenceMs);
  ping(to, Math.max(link.receivedAt + limits.silence * link.pingMs, now + limits.probeMs));
}

/**
 * Called when the network is back or the page is visible again. An open connection may have died unnoticed, so a ping
 * tests the connection. If the client waits for its next attempt, the attempt begins at once.
 */
export function onWake(to: Transition): void {
  if (to.state.link.status === 'open') probe(to);
  if (to.state.link.status !== 'waiting') return;
  to.clearTimer('reconnect');
  connect(to);
}

/** Handles the timer `stale`. */
export function checkFreshness(to: Transition): void {
  const { link, groups } = to.state;
  if (link.status !== 'open') return;
  const isExpected = [...groups.values()].some(({ stream }) => stream.phase === 'live');
  const freshness = judge(link.freshness, to.world.now, isExpected);
  setFreshness(to, freshness);
  if (!freshness.isStale) return awaitPosition(to);
  // Another replica may be stale too, so the client keeps this connection. The ping tests whether this replica hangs.
  probe(to);
}

/**
 * Handles the timer `answer <request>`. The server answers requests at once and in order. On a slow network, the answer
 * may arrive only after rows that the server sent earlier. So the timer starts again while content arrives. If the
 * server sends only `pong` and `pos`, the connection is given up.
 */
export function checkAnswer(to: Transition, request: number): void {
  const isPending = [...to.state.groups.values()].some(
    ({ stream }) => 'request' in stream && stream.request === request,
  );
  if (!isPending) return;
  const { link, answerMs } = to.state;
  const contentAt = link.status === 'open' ? link.contentAt : null;
  const restMs = contentAt === null ? 0 : contentAt + answerMs - to.world.now;
  if (restMs > 0) return to.setTimer(answerTimer + request, restMs);
  to.report(`a request was not answered within ${answerMs} ms`);
  reconnectLater(to);
}

/** Sends a ping that must be answered within `probeMs`, even if an earlier ping has more time. */
function probe(to: Transition): void {
  const { link } = to.state;
  const soon = to.world.now + limits.probeMs;
  if (link.status === 'open') ping(to, Math.min(link.deadAt ?? soon, soon));
}

function ping(to: Transition, deadAt: number): void {
  const { link } = to.state;
  if (link.status !== 'open') return;
  to.send({ type: 'ping' });
  to.set({ link: { ...link, deadAt } });
  to.setTimer('liveness', deadAt - to.world.now);
}

function awaitPosition(to: Transition): void {
  const { link } = to.state;
  if (link.status !== 'open' || link.freshness.staleMs === null) return;
  to.setTimer('stale', Math.max(0, link.freshness.dueAt - to.world.now));
}

/** Stores the freshness. If the connection becomes stale or fresh again, the states of all its subscriptions change. */
function setFreshness(to: Transition, freshness: Freshness): void {
  const { link } = to.state;
  if (link.status !== 'open') return;
  if (link.freshness.isStale === freshness.isStale) return to.set({ link: { ...link, freshness } });
  to.move({ ...link, freshness });
  if (!freshness.isStale) awaitPosition(to);
  to.putAll((group) => group);
}
