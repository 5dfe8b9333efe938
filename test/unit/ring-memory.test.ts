// The bytes that the ring counts are the memory that it holds after a full collection, whatever its batches and frames
// were cut from.

import v8 from 'node:v8';
import vm from 'node:vm';
import { expect, test } from 'vitest';
import { type Frames, Ring } from '#gateway/channels/ring.ts';
import { type Batch, openBatch, withOwnBuffer } from '#shared/log/batch.ts';
import { batchOf } from '../support/truth/batches.ts';

v8.setFlagsFromString('--expose-gc');
const collect = vm.runInNewContext('gc') as () => void;
const maxBytes = 16 * 1024 ** 2;

function memory(): number {
  for (let i = 0; i < 3; i++) collect();
  const { heapUsed, external } = process.memoryUsage();
  return heapUsed + external;
}

/** Batches as they come from a socket: views of chunks of 64 kB. */
function cutFromChunks(sizes: readonly number[]): () => Batch {
  let seq = 0;
  let chunk = Buffer.alloc(0);
  let at = 0;
  return () => {
    seq++;
    const { buffer } = batchOf(seq, seq, { bytes: sizes[seq % sizes.length]! });
    if (chunk.length - at < buffer.length) {
      chunk = Buffer.allocUnsafeSlow(Math.max(64 * 1024, buffer.length + 1000));
      at = 0;
    }
    at += buffer.copy(chunk, at);
    return withOwnBuffer(openBatch(chunk.subarray(at - buffer.length, at)));
  };
}

/** the keys of the channels */
const keys = Array.from({ length: 50 }, (_, i) => `ws:${i}`);
const none: Frames = { buffer: Buffer.alloc(0), count: 0 };

const cases: [what: string, sizes: number[], frames: (batch: Batch) => Iterable<[string, Frames]>][] = [
  ['tiny batches', [2], () => []],
  ['small batches', [200, 400], () => []],
  ['large batches', [300_000], () => []],
  ['small and large batches in turn', [2, 100_000, 50, 5_000], () => []],
  ['tiny batches of many channels without frames', [2], () => keys.map((key) => [key, none])],
  [
    'small frames of many channels, cut from the pool beside buffers that are released',
    [300],
    function* () {
      for (let i = 0; i < 20; i++) {
        yield [`ws:${i}`, { buffer: Buffer.concat([Buffer.from('x'.repeat(350))]), count: 1 }];
        Buffer.from('y'.repeat(700));
      }
    },
  ],
  [
    'one small frame a batch',
    [300],
    function* () {
      yield ['ws', { buffer: Buffer.concat([Buffer.from('x'.repeat(350))]), count: 1 }];
      for (let i = 0; i < 20; i++) Buffer.from('y'.repeat(700));
    },
  ],
  [
    'large frames',
    [40_000],
    function* () {
      for (let i = 0; i < 3; i++) yield [`ws:${i}`, { buffer: Buffer.allocUnsafeSlow(40_500), count: 1 }];
    },
  ],
];

test.each(cases)('the ring counts the memory that it holds: %s', (_what, sizes, framesOf) => {
  const next = cutFromChunks(sizes);
  const ring = new Ring(maxBytes);
  const before = memory();
  // twice as much as the ring holds
  for (let pushed = 0; pushed < 2 * maxBytes; ) {
    const batch = next();
    const recent = ring.push(batch);
    for (const [key, frames] of framesOf(batch)) ring.keep(recent, key, frames);
    pushed += recent.bytes;
  }
  const held = memory() - before;
  expect(ring.bytes).toBeGreaterThan(maxBytes * 0.9);
  expect(held / maxBytes).toBeLessThan(1.3);
  // the ring does not hold much less than it may
  expect(held / maxBytes).toBeGreaterThan(0.4);
});
