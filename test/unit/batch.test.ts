// Packed batches: rows come out as Postgres rendered them, and large batches are split.

import * as fc from 'fast-check';
import { describe, expect, test } from 'vitest';
import {
  batchesOf,
  type ChangeRow,
  canariesOf,
  drainedAtOf,
  openBatch,
  packBatches,
  splitAtBreaks,
} from '#shared/log/batch.ts';
import { rowsIn, rowsOf } from '../support/truth/batches.ts';

const text = fc.option(
  fc.oneof(
    fc.constant(''),
    fc.string({ unit: 'grapheme', maxLength: 40 }),
    fc.json(),
    fc.constantFrom('"🦀👩‍👩‍👧‍👦"', '"é"', '{"a":null}', '\u0000', '"\u{10FFFF}"'),
    fc.integer({ min: 1_000, max: 200_000 }).map((n) => `"${'ß'.repeat(n)}"`),
  ),
  { nil: null },
);

const change = fc.tuple(
  fc.bigInt({ min: 0n, max: 2n ** 64n - 1n }),
  fc.oneof(fc.integer({ min: 0, max: 4_102_444_800_000 }).map(String), fc.constantFrom('1700000000000.123', '0.5')),
  fc.integer({ min: 1, max: 2 ** 31 - 1 }),
  fc.constantFrom('I', 'U', 'D', 'T', 'S', 'C'),
  text,
  text,
  text,
  fc.constantFrom('t', 'f'),
);

describe('packBatches', () => {
  test('rows that were packed come out of their bytes as they went in, in any split', () => {
    fc.assert(
      fc.property(
        fc.integer({ min: 1, max: 2 ** 32 - 1 }),
        fc.integer({ min: 1, max: 999_999_999_000_000 }),
        fc.array(change, { maxLength: 30 }),
        (epoch, firstSeq, changes) => {
          const rows = changes.map(
            ([xid, at, relation, ...rest], i): ChangeRow => [
              String(firstSeq + i),
              String(xid),
              at,
              String(relation),
              ...rest,
            ],
          );
          const batches = packBatches(epoch, rows).map((batch) => openBatch(Buffer.from(batch.buffer)));
          expect(batches.flatMap(rowsIn)).toEqual(rows);
          let next = firstSeq;
          for (const batch of batches) {
            expect(batch.epoch).toBe(epoch);
            expect(batch.firstSeq).toBe(next);
            next = batch.lastSeq + 1;
          }
          expect(next).toBe(firstSeq + rows.length);
        },
      ),
    );
  });

  test('a packed batch has the same header values as its bytes', () => {
    for (const batch of packBatches(3, rowsOf(7, 900, { bytes: 1_000 }))) {
      const { epoch, firstSeq, lastSeq } = openBatch(batch.buffer);
      expect({ epoch, firstSeq, lastSeq }).toEqual({ epoch: 3, firstSeq: batch.firstSeq, lastSeq: batch.lastSeq });
    }
  });

  test('packing no rows makes no batch', () => {
    expect(packBatches(1, [])).toEqual([]);
  });

  test('a batch ends at the first change that makes it large', () => {
    const batches = packBatches(1, rowsOf(1, 1_000, { bytes: 2_000 }));
    expect(batches.length).toBeGreaterThan(5);
    for (const batch of batches.slice(0, -1)) {
      expect(batch.buffer.length).toBeGreaterThanOrEqual(256 * 1024);
      expect(batch.buffer.length).toBeLessThan(256 * 1024 + 2_100);
    }
    // a change above that size is alone in its batch, or the last
    const [first, second] = packBatches(1, [...rowsOf(1, 1), ...rowsOf(2, 2, { bytes: 3_000_000 }), ...rowsOf(3, 3)]);
    expect([first!.lastSeq, second!.firstSeq]).toEqual([2, 3]);
  });

  test('a batch ends after at most 5,000 changes', () => {
    const batches = packBatches(1, rowsOf(1, 12_001, { bytes: 2 }));
    for (const batch of batches) expect(batch.lastSeq - batch.firstSeq + 1).toBeLessThanOrEqual(5_000);
    expect(batches.flatMap(rowsIn)).toHaveLength(12_001);
  });

  test('packing refuses rows that are not consecutive', () => {
    expect(() => packBatches(1, [...rowsOf(1, 2), ...rowsOf(4, 4)])).toThrow('seq 4 where 3 was expected');
  });
});

describe('batchesOf', () => {
  const room = Buffer.alloc(24);

  test('batches cut from packed changes equal batches packed from rows', () => {
    const canary: ChangeRow = ['901', '7', '1', '0', 'C', null, '{"every_ms":250}', null, 't'];
    for (const rows of [
      rowsOf(7, 7),
      [...rowsOf(7, 900, { bytes: 1_000 }), canary],
      rowsOf(1, 12_001, { bytes: 2 }),
      [...rowsOf(1, 1), ...rowsOf(2, 2, { bytes: 3_000_000 }), ...rowsOf(3, 3)],
    ]) {
      const expected = packBatches(3, rows, 1_234.5);
      const packed = Buffer.concat([room, ...expected.map((batch) => batch.buffer.subarray(24))]);
      const batches = batchesOf(3, Number(rows[0]![0]), packed, 1_234.5);
      expect(batches).toEqual(expected);
      // a single batch shares the packed buffer; several own theirs, so that none keeps the whole drain alive
      for (const { buffer } of batches) expect(buffer === packed).toBe(batches.length === 1);
      for (const { buffer } of batches) expect(buffer.buffer === packed.buffer).toBe(batches.length === 1);
    }
  });

  test('cutting no packed changes makes no batch', () => {
    expect(batchesOf(3, 1, room, 0)).toEqual([]);
  });
});

describe('canaries', () => {
  const canary = (seq: number): ChangeRow => [
    String(seq),
    '9',
    '1700000000000.5',
    '0',
    'C',
    null,
    '{"every_ms":250}',
    null,
    't',
  ];

  test('a batch reports the canaries in it', () => {
    const [batch] = packBatches(1, [...rowsOf(1, 3), canary(4), ...rowsOf(5, 6)]);
    const found = [{ atMs: 1_700_000_000_000.5, everyMs: 250 }];
    expect(canariesOf(openBatch(batch!.buffer))).toEqual(found);
    expect(canariesOf(packBatches(1, rowsOf(1, 3))[0]!)).toEqual([]);
  });

  test('canaries and the time of the drain survive the split of a batch', () => {
    const shape: ChangeRow = ['3', '8', '0', '1', 'S', null, null, null, 't'];
    const [batch] = packBatches(1, [...rowsOf(1, 2), shape, canary(4)], 1_234.5);
    const parts = splitAtBreaks(batch!);
    expect(parts.map((part) => canariesOf(part).length)).toEqual([0, 0, 1]);
    expect(parts.map(drainedAtOf)).toEqual([1_234.5, 1_234.5, 1_234.5]);
    expect(drainedAtOf(packBatches(1, rowsOf(1, 1))[0]!)).toBe(0);
  });
});

describe('openBatch', () => {
  test('opening bytes that are no batch throws an error', () => {
    const [batch] = packBatches(1, rowsOf(1, 1));
    const other = Buffer.from(batch!.buffer);
    other[0] = 99;
    for (const bytes of [Buffer.alloc(0), Buffer.from('{}'), batch!.buffer.subarray(0, 10), other])
      expect(() => openBatch(bytes)).toThrow('not a batch of this version');
  });
});
