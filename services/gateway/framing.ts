/** How a message is wrapped on its way: as a WebSocket text frame, or as a server-sent event whose id is the position. */

export interface Framing {
  readonly name: 'ws' | 'sse';
  /** What goes before a payload of so many bytes. `position`: of the payload, where it has one. */
  head(payloadBytes: number, position: string | null): Buffer;
  readonly tail: Buffer;
}

const empty = Buffer.alloc(0);

/** A final text frame, unmasked as a server's frames are (RFC 6455, 5.2). */
export const webSocketFraming: Framing = {
  name: 'ws',
  head(payloadBytes) {
    const head = Buffer.allocUnsafe(webSocketHeadBytes(payloadBytes));
    writeWebSocketHead(head, 0, payloadBytes);
    return head;
  },
  tail: empty,
};

export const eventFraming: Framing = {
  name: 'sse',
  head: (_payloadBytes, position) => Buffer.from(position === null ? 'data: ' : `id: ${position}\ndata: `),
  tail: Buffer.from('\n\n'),
};

/** One message, wrapped. */
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
