// Owns a WebSocket client of plank.v1 on a bare socket, which reads only when the test says so and sends any bytes.

import { randomBytes } from 'node:crypto';
import { once } from 'node:events';
import { connect, type Socket } from 'node:net';

/** A client's frame, masked as the protocol requires. */
export function clientFrame(payload: string | Buffer, opcode = 1, fin = true): Buffer {
  const body = Buffer.from(payload);
  const mask = randomBytes(4);
  const head =
    body.length < 126
      ? Buffer.from([0, 0x80 | body.length])
      : body.length < 65_536
        ? Buffer.from([0, 0x80 | 126, body.length >> 8, body.length & 255])
        : Buffer.from([0, 0x80 | 127, 0, 0, 0, 0, ...[24, 16, 8, 0].map((shift) => (body.length >> shift) & 255)]);
  head[0] = (fin ? 0x80 : 0) | opcode;
  for (let i = 0; i < body.length; i++) body[i]! ^= mask[i & 3]!;
  return Buffer.concat([head, mask, body]);
}

export class RawPeer {
  readonly socket: Socket;
  received = 0;
  #requests = 0;

  private constructor(socket: Socket) {
    this.socket = socket;
    socket.on('error', () => {});
  }

  /** Connects and sends `hello`, and reads nothing. */
  static async connect(url: string, hello = true): Promise<RawPeer> {
    const { hostname, port } = new URL(url);
    const socket = connect({ host: hostname, port: Number(port) });
    const peer = new RawPeer(socket);
    await once(socket, 'connect');
    socket.write(
      `GET /ws HTTP/1.1\r\nHost: x\r\nUpgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Version: 13\r\nSec-WebSocket-Key: ${randomBytes(16).toString('base64')}\r\nSec-WebSocket-Protocol: plank.v1\r\n\r\n`,
    );
    if (hello) peer.send({ type: 'hello' });
    await once(socket, 'readable');
    return peer;
  }

  send(message: object): void {
    this.socket.write(clientFrame(JSON.stringify(message)));
  }

  write(bytes: Buffer): void {
    this.socket.write(bytes);
  }

  subscribe(ask: object): void {
    this.send({ type: 'subscribe', id: ++this.#requests, ...ask });
  }

  /** From now on, reads one byte every `everyMs`. */
  trickle(everyMs: number): void {
    const timer = setInterval(() => this.socket.read(1), everyMs);
    this.socket.once('close', () => clearInterval(timer));
  }

  /** From now on, reads everything. */
  readAll(onBytes: (bytes: Buffer) => void = () => {}): void {
    this.socket.on('data', (bytes: Buffer) => {
      this.received += bytes.length;
      onBytes(bytes);
    });
  }

  close(): void {
    this.socket.destroy();
  }
}
