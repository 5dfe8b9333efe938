/**
 * Splits the bytes from a Postgres server at message boundaries. If a message arrives in pieces, pg's parser collects
 * the message and the bytes around it in buffers that double in size. With a large result, these buffers take several
 * times the result's size, outside of the heap, until a full garbage collection. If all messages are whole, the parser
 * collects nothing.
 */

/** type (1 byte) and length (4 bytes); the length counts its own 4 bytes too */
const headBytes = 5;
/** large enough for a change with two images of the largest possible bound; V8 cannot make a string of 512 MB */
const maxMessageBytes = 128 * 1024 * 1024;

/** The server sent bytes that are no message, or a message that is too large. The connection can no longer be used. */
export class UnreadableMessage extends Error {
  override readonly name = 'UnreadableMessage';
}

/**
 * Returns a function that must get each chunk, from the server's first byte on. The function passes the same bytes on
 * to `pass`, in whole messages. If a message is too large, it throws UnreadableMessage.
 */
export function wholeMessages(pass: (messages: Buffer) => void): (chunk: Buffer) => void {
  const head = Buffer.alloc(headBytes);
  /** how many bytes of a head have arrived, if the head arrives in pieces */
  let seen = 0;
  /** a message that began in an earlier chunk, in a buffer of the message's size */
  let begun: Buffer | undefined;
  let filled = 0;

  function begin(start: Buffer, at: number): void {
    const bytes = 1 + start.readUInt32BE(at + 1);
    if (bytes > maxMessageBytes)
      throw new UnreadableMessage(
        `Postgres sent ${bytes} bytes at once, which is more than the limit of ${maxMessageBytes}`,
      );
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
