/**
 * Owns the bytes of `copy … to stdout` on their way out of a connection. pg gathers a message that arrives in pieces in buffers that
 * double, and lends it out; of a large one, that is several times its size, again and again, which no heap counts until the
 * collector is asked to look through all of it. Here each goes into one buffer of its size, which is then the taker's.
 */

const copyData = 100; // 'd'
/** type and length; the length counts itself */
const headBytes = 5;

/**
 * Returns what is to be called with each chunk that a server sends, from its first byte on. The data of each CopyData message goes to
 * `take`, everything else to `pass`, in the order in which it came. What is passed on is only lent, as the chunk was.
 */
export function copyDataApart(pass: (bytes: Buffer) => void, take: (data: Buffer) => void): (chunk: Buffer) => void {
  const head = Buffer.alloc(headBytes);
  /** how much of the message's head has come */
  let seen = 0;
  /** how much of its body has not */
  let left = 0;
  let data: Buffer | undefined;

  return (chunk) => {
    /** where that begins which is to be passed on */
    let from = 0;
    for (let at = 0; at < chunk.length; ) {
      if (seen < headBytes) {
        if (seen === 0 && chunk[at] === copyData && from < at) pass(chunk.subarray(from, at));
        head[seen++] = chunk[at++]!;
        if (seen === headBytes) {
          left = head.readInt32BE(1) - 4;
          // from no pool: small ones would keep what else is in it
          if (head[0] === copyData) data = Buffer.allocUnsafeSlow(left);
        }
      } else {
        const count = Math.min(left, chunk.length - at);
        if (data) chunk.copy(data, data.length - left, at, at + count);
        at += count;
        left -= count;
      }
      if (head[0] === copyData) from = at;
      if (seen < headBytes || left > 0) continue;
      seen = 0;
      if (data) take(data);
      data = undefined;
    }
    if (from < chunk.length) pass(chunk.subarray(from));
  };
}
