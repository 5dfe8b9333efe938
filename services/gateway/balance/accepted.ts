/**
 * Finds the moment to stop accepting connections. Closing the listening socket resets connections
 * that the kernel has accepted and this process has not.
 */
import type { Server } from 'node:net';
import { setImmediate as nextTurn } from 'node:timers/promises';

/**
 * turns of the event loop without a new connection. A turn accepts one connection, if there is any.
 * Two, because the first turn may be half over already.
 */
const quietTurns = 2;
/** a longer turn may hide a connection that came meanwhile, so it does not count */
const shortMs = 0.3;
/** longest wait after the last connection, where no turn of the loop is short */
const restlessMs = 500;
/** longest wait in all, where connections come faster than they are accepted */
const maxMs = 1_500;

/**
 * Resolves in a moment in which no connection waits to be accepted, for the server to be closed at
 * once. A POST on a connection that is reset would be lost, as no proxy may send it again.
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
