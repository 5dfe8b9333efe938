// Changes that a snapshot saw are dropped after it, once each, and no others.

import * as fc from 'fast-check';
import { describe, expect, test } from 'vitest';
import { AlreadySeen } from '#gateway/channels/already-seen.ts';

describe('changes already seen', () => {
  test('a snapshot that saw nothing drops nothing', () => {
    const seen = new AlreadySeen('10:10:', 0);
    expect(seen.done).toBe(true);
    expect(seen.drops(5n)).toBe(false);
  });

  test.each([
    ['before every running one', 9n, true],
    ['still running', 10n, false],
    ['ended, between running ones', 11n, true],
    ['running too', 12n, false],
    ['ended, behind the running ones', 19n, true],
    ['begun since', 20n, false],
    ['begun long since', 2n ** 63n, false],
  ])('a snapshot judges a transaction that is %s', (_name, xid, dropped) => {
    expect(new AlreadySeen('10:20:10,12', 1).drops(xid)).toBe(dropped);
  });

  test('a snapshot is done after the last change that it drops', () => {
    const seen = new AlreadySeen('10:20:', 2);
    expect([
      seen.drops(11n),
      seen.done,
      seen.drops(25n),
      seen.done,
      seen.drops(12n),
      seen.done,
      seen.drops(13n),
    ]).toEqual([true, false, false, false, true, true, false]);
  });

  // A log in any order and a snapshot at any moment. The changes that it saw are counted as plank.between does.
  test('a snapshot leaves of a log what it did not see', () => {
    const log = fc.array(fc.record({ xid: fc.bigInt(100n, 130n) }), { maxLength: 60 });
    fc.assert(
      fc.property(log, fc.bigInt(95n, 135n), fc.uniqueArray(fc.bigInt(100n, 134n)), (changes, xmax, some) => {
        const running = some.filter((xid) => xid < xmax).sort((a, b) => Number(a - b));
        const xmin = running[0] ?? xmax;
        const sees = (xid: bigint) => xid < xmax && !running.includes(xid);
        const seen = new AlreadySeen(
          `${xmin}:${xmax}:${running.join(',')}`,
          changes.filter(({ xid }) => sees(xid)).length,
        );
        expect(changes.filter(({ xid }) => !seen.drops(xid))).toEqual(changes.filter(({ xid }) => !sees(xid)));
        expect(seen.done).toBe(true);
      }),
    );
  });
});
