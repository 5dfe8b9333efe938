// A server's messages, cut where they end, in whatever pieces they arrive.

import * as fc from 'fast-check';
import { expect, test } from 'vitest';
import { wholeMessages } from '#shared/postgres/whole-messages.ts';

function messageOf(type: string, body: Uint8Array): Buffer {
  const head = Buffer.alloc(5);
  head.write(type, 'latin1');
  head.writeUInt32BE(body.length + 4, 1);
  return Buffer.concat([head, body]);
}

const message = fc
  .tuple(fc.constantFrom('d', 'D', 'Z', 'C'), fc.uint8Array({ maxLength: 40 }))
  .map(([type, body]) => messageOf(type, body));

test('messages come whole and in order, and as soon as they are complete', () => {
  fc.assert(
    fc.property(
      fc.array(message, { maxLength: 12 }),
      fc.array(fc.integer({ min: 1, max: 30 }), { maxLength: 60 }),
      (messages, sizes) => {
        const all = Buffer.concat(messages);
        const passed: Buffer[] = [];
        const feed = wholeMessages((bytes) => passed.push(bytes));
        let fed = 0;
        let whole = 0;
        const ends = messages.map((one) => {
          whole += one.length;
          return whole;
        });
        for (const size of [...sizes, all.length]) {
          feed(Buffer.from(all.subarray(fed, fed + size)));
          fed = Math.min(all.length, fed + size);
          const length = passed.reduce((sum, bytes) => sum + bytes.length, 0);
          expect(length).toBe(ends.findLast((end) => end <= fed) ?? 0);
        }
        expect(Buffer.concat(passed).equals(all)).toBe(true);
      },
    ),
  );
});

test('a whole message is not copied, and one in pieces is copied once, into a buffer of its size', () => {
  const passed: Buffer[] = [];
  const feed = wholeMessages((bytes) => passed.push(bytes));
  const large = messageOf('d', Buffer.alloc(100_000, 7));
  const first = Buffer.concat([
    messageOf('Z', Buffer.from('I')),
    messageOf('c', Buffer.alloc(0)),
    large.subarray(0, 7),
  ]);
  const last = Buffer.concat([large.subarray(50_000), messageOf('C', Buffer.from('copy'))]);
  for (const chunk of [first, large.subarray(7, 50_000), last]) feed(chunk);
  expect(passed.map((bytes) => bytes.length)).toEqual([11, 100_005, 9]);
  expect(passed[0]!.buffer).toBe(first.buffer);
  expect(passed[1]!.equals(large)).toBe(true);
  expect(passed[1]!.buffer.byteLength).toBe(100_005);
  expect(passed[2]!.buffer).toBe(last.buffer);
});
