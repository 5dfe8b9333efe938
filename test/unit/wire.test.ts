// Positions as text: what clients keep and send back.

import * as fc from 'fast-check';
import { describe, expect, test } from 'vitest';
import { closeCodes, formatPosition, parsePosition } from '#shared/wire.ts';

describe('positions', () => {
  test('a position survives formatting and parsing', () => {
    fc.assert(
      fc.property(
        fc.integer({ min: 0, max: 2 ** 32 - 1 }),
        fc.integer({ min: 0, max: 999_999_999_999_999 }),
        (epoch, seq) => {
          expect(parsePosition(formatPosition({ epoch, seq }))).toEqual({ epoch, seq });
        },
      ),
    );
  });

  test.each([
    '',
    'e',
    'e1',
    'e1.',
    '.5',
    'e.5',
    '1.5',
    'E1.5',
    'e1.5 ',
    ' e1.5',
    'e1.5\n',
    'e-1.5',
    'e1.-5',
    'e1.5.6',
    'e1,5',
    'e1.5e3',
    'e0x1.5',
    'e1.5n',
    'e١.5',
    `e1.${'9'.repeat(16)}`,
    `e${'9'.repeat(11)}.1`,
  ])('%j is no position', (text) => {
    expect(parsePosition(text)).toBeNull();
  });

  test('arbitrary text is a position only in the exact form', () => {
    fc.assert(
      fc.property(fc.oneof(fc.string(), fc.stringMatching(/^e\d*\.?\d*$/)), (text) => {
        const position = parsePosition(text);
        if (position === null) return;
        expect(Number.isSafeInteger(position.seq) && Number.isSafeInteger(position.epoch)).toBe(true);
        expect(text).toMatch(/^e\d+\.\d+$/);
      }),
    );
  });
});

describe('close codes', () => {
  test('close codes are different, and tell whose fault it was', () => {
    const codes = Object.values(closeCodes);
    expect(new Set(codes).size).toBe(codes.length);
    for (const code of codes) expect(code === 1009 || code === 1012 || (code >= 4400 && code < 4600)).toBe(true);
  });
});
