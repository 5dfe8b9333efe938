// The data of CopyData messages apart from everything else, however a server's bytes come in pieces.

import * as fc from 'fast-check';
import { expect, it } from 'vitest';
import { copyDataApart } from '../../shared/copy-data.ts';

interface Message {
  type: string;
  body: Buffer;
}

function bytesOf({ type, body }: Message): Buffer {
  const head = Buffer.alloc(5);
  head.write(type, 'latin1');
  head.writeInt32BE(body.length + 4, 1);
  return Buffer.concat([head, body]);
}

/** What comes out, in order: what is passed on piece by piece is put together. */
function apart(chunks: readonly Buffer[]): { passed: Buffer; taken: Buffer }[] {
  const parts: { passed: Buffer[]; taken: Buffer }[] = [];
  let passed: Buffer[] = [];
  const feed = copyDataApart(
    (bytes) => passed.push(Buffer.from(bytes)),
    (taken) => {
      parts.push({ passed, taken });
      passed = [];
    },
  );
  for (const chunk of chunks) {
    feed(chunk);
    // it was only lent
    chunk.fill(0xff);
  }
  parts.push({ passed, taken: Buffer.alloc(0) });
  return parts.map(({ passed, taken }) => ({ passed: Buffer.concat(passed), taken }));
}

const message = fc.record({
  type: fc.constantFrom('d', 'd', 'D', 'Z', 'C', 'E'),
  body: fc.uint8Array({ maxLength: 40 }).map((bytes) => Buffer.from(bytes)),
});

it('takes them whole and passes everything else on, in order, and keeps nothing that it was lent', () => {
  fc.assert(
    fc.property(
      fc.array(message, { maxLength: 12 }),
      fc.array(fc.integer({ min: 1, max: 30 }), { maxLength: 40 }),
      (messages, sizes) => {
        const all = Buffer.concat(messages.map(bytesOf));
        const chunks: Buffer[] = [];
        for (let at = 0; at < all.length; ) {
          const size = sizes[chunks.length] ?? all.length;
          chunks.push(Buffer.from(all.subarray(at, at + size)));
          at += size;
        }
        const expected: { passed: Buffer; taken: Buffer }[] = [];
        let passed: Buffer[] = [];
        for (const one of messages) {
          if (one.type !== 'd') passed.push(bytesOf(one));
          else {
            expected.push({ passed: Buffer.concat(passed), taken: one.body });
            passed = [];
          }
        }
        expected.push({ passed: Buffer.concat(passed), taken: Buffer.alloc(0) });
        expect(apart(chunks)).toEqual(expected);
      },
    ),
  );
});

it('gives each its own buffer, of its size', () => {
  const sent = ['one', 'another'].map((text) => bytesOf({ type: 'd', body: Buffer.from(text) }));
  const taken: Buffer[] = [];
  copyDataApart(
    () => {},
    (data) => taken.push(data),
  )(Buffer.concat(sent));
  expect(taken.map(String)).toEqual(['one', 'another']);
  expect(taken.map(({ buffer }) => buffer.byteLength)).toEqual([3, 7]);
});
