/** The end of accepting: connections that the kernel has taken and this process has not would be reset with the listening socket. */
import type { Server } from 'node:net';
import { setImmediate as nextTurn } from 'node:timers/promises';

/** of the event loop: in each, one connection is accepted where there is any; the first may be over already */
const quietTurns = 2;
/** what comes within a turn is not seen before the next one */
const shortMs = 0.3;
/** behind the last one, where the loop is never at rest */
const restlessMs = 500;
/** where others come faster than they are accepted */
const maxMs = 1_500;

/**
 * Resolves in a moment in which no connection waits to be accepted, for the server to be closed at once. A POST on one that is reset
 * would be lost: no proxy may send it again.
 */
export async function allAccepted(server: Server): Promise<void> {
  let began = performance.now();
  const latest = began + maxMs;
  let until = began + restlessMs;
  let quiet = 0;
  const onConnection = () => {
    quiet = -1;
    until = Math.min(latest, performance.now() + restlessMs);
  };
  server.on('connection', onConnection);
  while (quiet < quietTurns && began < until) {
    await nextTurn();
    const ended = performance.now();
    quiet = ended - began < shortMs ? quiet + 1 : 0;
    began = ended;
  }
  server.off('connection', onConnection);
}
