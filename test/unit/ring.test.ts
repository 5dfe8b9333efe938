// The recent log in memory: which batches it holds, and that its count of bytes is true after any operations.

import * as fc from 'fast-check';
import { describe, expect, test } from 'vitest';
import { type Recent, Ring } from '#gateway/channels/ring.ts';
import { batchOf } from '../support/truth/batches.ts';

const framesOf = (bytes: number) => ({ buffer: Buffer.alloc(bytes), count: 1 });
const batch = (firstSeq: number, lastSeq = firstSeq, bytes = 100) => batchOf(firstSeq, lastSeq, { bytes });

describe('Ring', () => {
  test('the ring finds the batch of a seq, and nothing outside of what it holds', () => {
    const ring = new Ring(1_000_000);
    expect(ring.find(1)).toBeUndefined();
    for (const [first, last] of [
      [5, 5],
      [6, 9],
      [10, 10],
      [11, 30],
    ] as const)
      ring.push(batch(first, last));
    for (let seq = 5; seq <= 30; seq++) {
      const found = ring.find(seq)!.batch;
      expect(seq >= found.firstSeq && seq <= found.lastSeq).toBe(true);
    }
    for (const seq of [-1, 0, 4, 31, 1_000]) expect(ring.find(seq)).toBeUndefined();
  });

  test('the ring drops the oldest batches above its bound, but never the newest', () => {
    const ring = new Ring(5_000);
    for (let seq = 1; seq <= 50; seq++) {
      ring.push(batch(seq));
      expect(ring.bytes).toBeLessThanOrEqual(5_000);
      expect(ring.find(seq)).toBeDefined();
    }
    expect(ring.find(1)).toBeUndefined();
    ring.push(batch(51, 51, 5_000));
    expect(ring.find(51)).toBeDefined();
    expect(ring.find(50)).toBeUndefined();
  });

  test('the ring counts the frames made of a batch, and drops them with it', () => {
    const ring = new Ring(4_000);
    const first = ring.push(batch(1));
    const before = ring.bytes;
    ring.keep(first, 'a', framesOf(500));
    ring.keep(first, 'b', framesOf(300));
    expect(ring.bytes).toBeGreaterThan(before + 800);
    expect(ring.bytes).toBe(first.bytes);
    expect(ring.find(1)!.frames.get('a')!.buffer).toHaveLength(500);
    const second = ring.push(batch(2));
    ring.keep(second, 'a', framesOf(2_500));
    expect(ring.find(1)).toBeUndefined();
    expect(ring.bytes).toBe(second.bytes);
  });

  test('the ring counts no frames of a batch that is gone', () => {
    const ring = new Ring(5_000);
    const first = ring.push(batch(1));
    for (let seq = 2; seq <= 20; seq++) ring.push(batch(seq));
    const { bytes } = ring;
    ring.keep(first, 'a', framesOf(400));
    expect(ring.bytes).toBe(bytes);
    for (let seq = 21; seq <= 60; seq++) ring.push(batch(seq));
    expect(ring.bytes).toBeLessThanOrEqual(5_000);
  });

  test('the ring is empty after clear, and continues at any position', () => {
    const ring = new Ring(10_000);
    const old = ring.push(batch(100));
    ring.keep(old, 'a', framesOf(50));
    ring.clear();
    expect(ring.bytes).toBe(0);
    expect(ring.find(100)).toBeUndefined();
    // frames that were built for a batch from before clear()
    ring.keep(old, 'b', framesOf(5_000));
    expect(ring.bytes).toBe(0);
    ring.push(batch(3));
    ring.keep(old, 'c', framesOf(5_000));
    expect(ring.bytes).toBe(ring.find(3)!.bytes);
    expect(ring.find(100)).toBeUndefined();
  });

  test('the ring stays within its bound over 20,000 batches', () => {
    const ring = new Ring(200_000);
    for (let seq = 1; seq <= 20_000; seq++) ring.push(batch(seq));
    expect(ring.bytes).toBeLessThanOrEqual(200_000);
    expect(ring.find(20_000)!.batch.firstSeq).toBe(20_000);
    expect(ring.find(19_900)!.batch.firstSeq).toBe(19_900);
    expect(ring.find(1)).toBeUndefined();
  });

  test('the ring holds an unbroken stretch up to the newest, and knows its size', () => {
    const step = fc.oneof(
      {
        weight: 4,
        arbitrary: fc.record({ push: fc.integer({ min: 1, max: 5 }), bytes: fc.integer({ min: 2, max: 900 }) }),
      },
      {
        weight: 3,
        arbitrary: fc.record({ keep: fc.nat(), key: fc.constantFrom('a', 'b', 'c'), bytes: fc.nat({ max: 900 }) }),
      },
      { weight: 1, arbitrary: fc.constant('clear' as const) },
    );
    fc.assert(
      fc.property(fc.integer({ min: 1, max: 6_000 }), fc.array(step, { maxLength: 80 }), (maxBytes, steps) => {
        const ring = new Ring(maxBytes);
        const all: Recent[] = [];
        let seq = 0;
        let since = 0;
        for (const step of steps) {
          if (step === 'clear') {
            ring.clear();
            since = all.length;
            seq = seq >> 1;
          } else if ('push' in step) {
            all.push(ring.push(batch(seq + 1, seq + step.push, step.bytes)));
            seq += step.push;
          } else if (all.length > 0) {
            const recent = all[step.keep % all.length]!;
            // a channel makes the frames of a batch once
            if (!recent.frames.has(step.key)) ring.keep(recent, step.key, framesOf(step.bytes));
          }
          const held = all.slice(since).filter(({ batch }) => ring.find(batch.firstSeq)?.batch === batch);
          expect(held).toEqual(held.length > 0 ? all.slice(-held.length) : []);
          for (const recent of held) expect(ring.find(recent.batch.lastSeq)).toBe(recent);
          const bytes = held.reduce((sum, recent) => sum + recent.bytes, 0);
          expect(ring.bytes).toBe(bytes);
          for (const { batch, frames, bytes: counted } of held) {
            const sizes = [...frames.values()].map(({ buffer }) => buffer.length);
            expect(counted).toBeGreaterThan(sizes.reduce((sum, size) => sum + size, batch.buffer.length));
          }
          expect(bytes <= maxBytes || held.length === 1).toBe(true);
          // nothing is dropped without need
          if (all.length > since) expect(held.length).toBeGreaterThan(0);
        }
      }),
    );
  });
});
