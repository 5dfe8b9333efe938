/** Frames a message as a WebSocket text frame, or as a server-sent event. The event's id is its position, if any. */

export interface Framing {
  readonly name: string;
  /** true: a payload must not have line breaks */
  readonly isOneLine: boolean;
  /** The bytes before a payload of this length. `position`: the position of the payload; null: it has none. */
  head(payloadBytes: number, position: string | null): Buffer;
  readonly tail: Buffer;
  /** for messages from the rows up to the next `live`: the client has no position there, so none may be its event id */
  readonly beforeLive?: Framing;
}

const empty = Buffer.alloc(0);

/** One text frame for each message (FIN is set). A server does not mask its frames (RFC 6455, 5.2). */
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

/**
 * Event ids that are not positions. A client that comes back with `anew` begins again. A client that
 * comes back with `end` gets 204, and does not come back again. `channel` stands between a position
 * and the name of a channel.
 */
export const eventIds = { anew: 'anew', end: 'end', channel: '~' } as const;

const eventsTail = Buffer.from('\n\n');
const beginsAnew = Buffer.from(`id: ${eventIds.anew}\ndata: `);

export const eventFraming: Framing = {
  name: 'sse',
  isOneLine: true,
  head: (_payloadBytes, position) => Buffer.from(position === null ? 'data: ' : `id: ${position}\ndata: `),
  tail: eventsTail,
  beforeLive: { name: 'sse-before-live', isOneLine: true, head: () => beginsAnew, tail: eventsTail },
};

/** The bytes of one message in its frame. */
export function framed(framing: Framing, text: string, position: string | null = null): Buffer {
  const payload = Buffer.from(text);
  return Buffer.concat([framing.head(payload.length, position), payload, framing.tail]);
}

export function webSocketHeadBytes(length: number): number {
  return length < 126 ? 2 : length < 65_536 ? 4 : 10;
}

/** Returns the index at which the payload begins. */
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
