/**
 * When accepting is over. Connections that the kernel has accepted and this process has not would
 * be reset when the listening socket closes.
 */
import type { Server } from 'node:net';
import { setImmediate as nextTurn } from 'node:timers/promises';

/**
 * turns of the event loop without a new connection: each accepts one where there is any; the first
 * may be half over already
 */
const quietTurns = 2;
/** connections that come within a turn this short are seen in the next one */
const shortMs = 0.3;
/** after the last connection, where the loop is never at rest */
const restlessMs = 500;
/** where connections come faster than they are accepted */
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
