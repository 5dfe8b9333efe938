/**
 * Cuts what a Postgres server sends where its messages end. pg's parser gathers one that comes in pieces in buffers that double, with
 * all that came beside it: of a large result several times its size, which no heap counts until the collector is asked to look through
 * all of it. It never gathers anything where messages come whole, so that they are nobody's but who keeps them.
 */

/** type and length; the length counts itself */
const headBytes = 5;
/** a change with two images of the largest bound there can be, and room; V8 makes no string of 512 MB */
const maxMessageBytes = 128 * 1024 * 1024;

/** What came is no message, or one that is too large to be held: the connection is of no use any more. */
export class UnreadableMessage extends Error {
  override readonly name = 'UnreadableMessage';
}

/**
 * Returns what is to be called with each chunk from the server's first byte on: `pass` gets the same bytes, whole messages at a time. It
 * throws where a message is too large to be held.
 */
export function wholeMessages(pass: (messages: Buffer) => void): (chunk: Buffer) => void {
  const head = Buffer.alloc(headBytes);
  /** how much has come of a head that came in pieces */
  let seen = 0;
  /** one that has begun in a chunk before, in a buffer of its size */
  let begun: Buffer | undefined;
  let filled = 0;

  function begin(start: Buffer, at: number): void {
    const bytes = 1 + start.readUInt32BE(at + 1);
    if (bytes > maxMessageBytes)
      throw new UnreadableMessage(`Postgres sent ${bytes} bytes at once, and ${maxMessageBytes} are the most`);
    begun = Buffer.allocUnsafe(bytes);
    filled = start.copy(begun, 0, at);
    seen = 0;
  }

  return (chunk) => {
    let at = 0;
    if (seen > 0) {
      while (seen < headBytes && at < chunk.length) head[seen++] = chunk[at++]!;
      if (seen < headBytes) return;
      begin(head, 0);
    }
    if (begun) {
      const count = chunk.copy(begun, filled, at, at + begun.length - filled);
      at += count;
      filled += count;
      if (filled < begun.length) return;
      const message = begun;
      begun = undefined;
      pass(message);
    }
    const from = at;
    while (at + headBytes <= chunk.length) {
      const end = at + 1 + chunk.readUInt32BE(at + 1);
      if (end > chunk.length) break;
      at = end;
    }
    if (from < at) pass(chunk.subarray(from, at));
    if (at + headBytes <= chunk.length) begin(chunk, at);
    else seen = chunk.copy(head, 0, at);
  };
}
