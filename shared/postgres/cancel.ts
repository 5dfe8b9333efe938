/**
 * Cancels the statement that a connection runs, as psql does at Ctrl-C: it sends a CancelRequest on another connection,
 * with the process id and the secret that the server gave to the first connection. Unlike pg_cancel_backend, a
 * CancelRequest needs no session. A free session could be missing when many clients leave. The request is sent without
 * TLS, which Postgres accepts; its secret allows nothing but cancelling.
 */
import { connect } from 'node:net';
import type { PoolClient } from './postgres.ts';

const requestCode = 80_877_102;
const requestBytes = 16;
const deadlineMs = 2_000;

/**
 * Resolves with true when the server has passed the request on, and with false if the server did not do so within 2 s;
 * never rejects. The request cancels any statement that the connection runs when the request arrives. So the caller
 * must let nobody else use the connection until then, and must end the connection after false.
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
    // the server sends nothing, and closes the connection when it has passed the request on
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

/** The fields of pg's client that identify a session. The types of pg leave the last two out. */
interface Session {
  readonly host: string;
  readonly port: number;
  readonly processID: number;
  readonly secretKey: number;
}
