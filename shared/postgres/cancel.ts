/**
 * Cancels the statement that a connection runs, as psql does at Ctrl-C: a CancelRequest on a
 * connection of its own, with the process id and the secret that the server gave to the first one.
 * Unlike pg_cancel_backend it needs no session, which could be missing when many clients leave.
 * The request is sent without TLS, which Postgres accepts; its secret allows nothing but cancelling.
 */
import { connect } from 'node:net';
import type { PoolClient } from './postgres.ts';

const requestCode = 80_877_102;
const requestBytes = 16;
const deadlineMs = 2_000;

/**
 * Resolves with true when the server has passed the request on, and with false if it did not do so
 * within 2 s; never rejects. The request cancels whatever the connection runs when it arrives. So
 * let nobody else use the connection until then, and end the connection after false.
 */
export function cancel(client: PoolClient): Promise<boolean> {
  const { host, port, processID, secretKey } = client as unknown as Session;
  const request = Buffer.alloc(requestBytes);
  request.writeInt32BE(requestBytes, 0);
  request.writeInt32BE(requestCode, 4);
  request.writeInt32BE(processID, 8);
  request.writeInt32BE(secretKey, 12);
  return new Promise((resolve) => {
    const socket = host.startsWith('/') ? connect(`${host}/.s.PGSQL.${port}`) : connect(port, host);
    const late = setTimeout(() => socket.destroy(), deadlineMs);
    let isDone = false;
    socket.on('error', () => {});
    // the server sends nothing, and closes when it has passed the request on
    socket.once('end', () => {
      isDone = true;
    });
    socket.once('close', () => {
      clearTimeout(late);
      resolve(isDone);
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
