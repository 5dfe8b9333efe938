/**
 * Finds the moment to stop accepting connections. If the listening socket closes, connections that
 * the kernel has accepted but this process has not are reset.
 */
import type { Server } from 'node:net';
import { setImmediate as nextTurn } from 'node:timers/promises';

/**
 * This many turns of the event loop without a new connection mean that no connection waits. A turn
 * accepts one connection, if any waits. Two turns, because the first may be half over already.
 */
const quietTurns = 2;
/** a turn longer than this does not count, as a connection may have come during the turn */
const shortMs = 0.3;
/** longest wait after the last connection, if no turn of the loop is short */
const restlessMs = 500;
/** longest wait in all, if connections come faster than they are accepted */
const maxMs = 1_500;

/**
 * Resolves when no connection waits to be accepted, or after 1.5 s. The caller must then close the
 * server at once. A POST on a connection that is reset would be lost, as a proxy may not send a POST
 * again.
 */
export async function allAccepted(server: Server): Promise<void> {
  let startedAt = performance.now();
  const latest = startedAt + maxMs;
  let until = startedAt + restlessMs;
  let quiet = 0;
  const onConnection = () => {
    quiet = -1;
    until = Math.min(latest, performance.now() + restlessMs);
  };
  server.on('connection', onConnection);
  while (quiet < quietTurns && startedAt < until) {
    await nextTurn();
    const endedAt = performance.now();
    quiet = endedAt - startedAt < shortMs ? quiet + 1 : 0;
    startedAt = endedAt;
  }
  server.off('connection', onConnection);
}
