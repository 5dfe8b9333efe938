/** How a message is framed: as a WebSocket text frame, or as a server-sent event whose id says where to go on. */

export interface Framing {
  readonly name: string;
  /** a payload must not have line breaks */
  readonly isOneLine: boolean;
  /** The bytes before a payload of this length. `position`: the payload's, where it has one. */
  head(payloadBytes: number, position: string | null): Buffer;
  readonly tail: Buffer;
  /** for messages between rows and the first `live` after them: no position says how far the client is then */
  readonly beforeLive?: Framing;
}

const empty = Buffer.alloc(0);

/** A final text frame, unmasked as a server's frames are (RFC 6455, 5.2). */
export const webSocketFraming: Framing = {
  name: 'ws',
  isOneLine: false,
  head(payloadBytes) {
    const head = Buffer.allocUnsafe(webSocketHeadBytes(payloadBytes));
    writeWebSocketHead(head, 0, payloadBytes);
    return head;
  },
  tail: empty,
};

/** Event ids that are no positions: a client that comes back with one begins again, or has nothing to come back for. */
export const eventIds = { anew: 'anew', end: 'end' } as const;

const eventsTail = Buffer.from('\n\n');
const beginsAnew = Buffer.from(`id: ${eventIds.anew}\ndata: `);

export const eventFraming: Framing = {
  name: 'sse',
  isOneLine: true,
  head: (_payloadBytes, position) => Buffer.from(position === null ? 'data: ' : `id: ${position}\ndata: `),
  tail: eventsTail,
  beforeLive: { name: 'sse-before-live', isOneLine: true, head: () => beginsAnew, tail: eventsTail },
};

/** One message with its framing. */
export function framed(framing: Framing, text: string, position: string | null = null): Buffer {
  const payload = Buffer.from(text);
  return Buffer.concat([framing.head(payload.length, position), payload, framing.tail]);
}

export function webSocketHeadBytes(length: number): number {
  return length < 126 ? 2 : length < 65_536 ? 4 : 10;
}

/** Returns where the payload begins. */
export function writeWebSocketHead(buffer: Buffer, at: number, length: number): number {
  buffer[at] = 0x81;
  if (length < 126) {
    buffer[at + 1] = length;
    return at + 2;
  }
  if (length < 65_536) {
    buffer[at + 1] = 126;
    return buffer.writeUInt16BE(length, at + 2);
  }
  buffer[at + 1] = 127;
  return buffer.writeUIntBE(length, buffer.writeUInt16BE(0, at + 2), 6);
}
