/**
 * Cancels the statement that a connection runs, as psql does at Ctrl-C: a CancelRequest on a
 * connection of its own, with the process id and the secret that the server gave to the first one.
 * A pooler such as pgbouncer passes the request on. pg_cancel_backend would need the process id of
 * the server, which a pooler hides.
 */
import { connect } from 'node:net';
import type { PoolClient } from './postgres.ts';

const requestCode = 80_877_102;
const requestBytes = 16;
const deadlineMs = 2_000;

/**
 * Resolves when the server has passed the request on, also if it could not be reached within 2 s;
 * never rejects. Keep the connection until then: the request cancels whatever the connection runs
 * when it arrives.
 */
export function cancel(client: PoolClient): Promise<void> {
  const { host, port, processID, secretKey } = client as unknown as Session;
  const request = Buffer.alloc(requestBytes);
  request.writeInt32BE(requestBytes, 0);
  request.writeInt32BE(requestCode, 4);
  request.writeInt32BE(processID, 8);
  request.writeInt32BE(secretKey, 12);
  return new Promise((resolve) => {
    const socket = host.startsWith('/') ? connect(`${host}/.s.PGSQL.${port}`) : connect(port, host);
    const late = setTimeout(() => socket.destroy(), deadlineMs);
    socket.on('error', () => {});
    // the server sends nothing, and closes when it has passed the request on
    socket.once('close', () => {
      clearTimeout(late);
      resolve();
    });
    socket.resume();
    socket.end(request);
  });
}

/** What pg knows of a session; its types leave the last two out. */
interface Session {
  readonly host: string;
  readonly port: number;
  readonly processID: number;
  readonly secretKey: number;
}
