// Owns the clients of the benchmarks: WebSockets without a library, which read into one buffer for all of them and look at
// nothing that they are not asked to. A client costs little more than its reads.

import { connect, type Socket } from 'node:net';

/** what all sockets read into, one after the other */
const shared = Buffer.allocUnsafeSlow(256 * 1024);
const handshakeMs = 30_000;

export interface RawSocket {
  readonly socket: Socket;
  /** Is called with what has arrived, which is only valid during the call. */
  onBytes: (bytes: Buffer) => void;
}

/** Resolves when the server has switched to WebSocket. What came with its answer is kept for the first `onBytes` set in time. */
export function openRawSocket(url: string, onBytes: (bytes: Buffer) => void, first?: string): Promise<RawSocket> {
  const { hostname, port, pathname, search } = new URL(url);
  const { promise, resolve, reject } = Promise.withResolvers<RawSocket>();
  let head = '';
  let open = false;
  const onread = {
    buffer: shared,
    callback: (count: number) => {
      if (open) raw.onBytes(shared.subarray(0, count));
      else opening(shared.subarray(0, count));
      return true;
    },
  };
  const socket = connect({ host: hostname, port: Number(port), noDelay: true, onread });
  const raw: RawSocket = { socket, onBytes };
  const timer = setTimeout(() => socket.destroy(new Error(`no answer within ${handshakeMs} ms`)), handshakeMs);
  function opening(bytes: Buffer): void {
    head += bytes.toString('latin1');
    const end = head.indexOf('\r\n\r\n');
    if (end < 0) return;
    clearTimeout(timer);
    if (!head.startsWith('HTTP/1.1 101')) {
      socket.destroy(new Error(`refused: ${head.slice(0, 60)}`));
      return;
    }
    open = true;
    if (first !== undefined) socket.write(maskedText(first));
    resolve(raw);
    const rest = Buffer.from(head.slice(end + 4), 'latin1');
    head = '';
    if (rest.length > 0) raw.onBytes(rest);
  }
  socket.once('connect', () => {
    socket.write(
      `GET ${pathname}${search} HTTP/1.1\r\nhost: ${hostname}:${port}\r\nupgrade: websocket\r\nconnection: upgrade\r\n` +
        'sec-websocket-version: 13\r\nsec-websocket-key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n',
    );
  });
  socket.once('error', reject);
  socket.once('close', () => {
    clearTimeout(timer);
    reject(new Error('closed'));
  });
  return promise;
}

/** A text frame as clients send it, under the mask 0. At most 125 bytes. */
function maskedText(text: string): Buffer {
  const payload = Buffer.from(text);
  if (payload.length > 125) throw new Error('the message is too long');
  return Buffer.concat([Buffer.from([0x81, 0x80 | payload.length, 0, 0, 0, 0]), payload]);
}
