// The keys of a live query's map come from the exact JSON. Two keys that a JavaScript number would merge stay apart. A row
// and its changes have the same key. Equal numbers are one key however they are written. Values stay JavaScript numbers.

import { describe, expect, test } from 'vitest';
import { LiveRows } from '#client/live/rows.ts';
import { exactMember, exactValue, parseExact } from '#client/values/exact.ts';
import type { ChangeFrame, Row } from '#shared/wire.ts';

/** A row, and the id of a change of it, as the SDK's socket parses them. */
const rowOf = (json: string) => parseExact(`{"row":{"k":${json},"v":1}}`) as { row: Row };
const idOf = (json: string) =>
  exactValue(exactMember(parseExact(`{"type":"change","id":${json},"pos":"e1.2"}`) as object, 'id'));

describe('keys', () => {
  test.each([
    ['1', 1],
    ['-7', -7],
    ['9007199254740991', 9007199254740991],
    ['9007199254740993', 9007199254740993n],
    ['-9223372036854775808', -9223372036854775808n],
    ['0.1', 0.1],
    ['0.1000000000000000055', '0.1000000000000000055'],
    ['-0.1000000000000000055', '-0.1000000000000000055'],
    ['0.30000000000000004', 0.30000000000000004],
    ['0.3000000000000000444', '0.3000000000000000444'],
    ['1.0', 1],
    ['1.00', 1],
    ['1.00000000000000000000', 1],
    ['1.00000000000000000001', '1.00000000000000000001'],
    ['1.50000000000000000000', 1.5],
    ['9007199254740993.0', 9007199254740993n],
    ['9007199254740992.00', 9007199254740992n],
    ['100000000000000000000', 100000000000000000000n],
    ['100000000000000000000.0', 100000000000000000000n],
    ['12345678.12345678', 12345678.12345678],
    ['0.0000000000000000000000000001', 1e-28],
    ['1.2345678901234567e+25', Number('1.2345678901234567e25')],
    ['1e-05', 0.00001],
    ['"1"', '1'],
    ['"9007199254740993"', '9007199254740993'],
    ['"0.1000000000000000055"', '0.1000000000000000055'],
    ['"__proto__"', '__proto__'],
    ['"naïve\\u0000 ☃"', 'naïve\u0000 ☃'],
    ['true', true],
  ])('the key of %s is exact in rows and in changes', (json, key) => {
    const live = new LiveRows();
    live.replace([rowOf(json).row], ['k']);
    expect([...live.rows.keys()]).toEqual([key]);
    expect(idOf(json)).toEqual(key);
    const change = { type: 'change', effect: 'remove', id: idOf(json), tx: '1', last: true, pos: 'e1.2' };
    live.apply(change as ChangeFrame);
    expect(live.rows.size).toBe(0);
  });

  test.each([
    ['{"b":0.1000000000000000055,"a":"x"}', '{"a":"x","b":"0.1000000000000000055"}'],
    ['{"a":9007199254740993,"b":0.1}', '{"a":9007199254740993,"b":0.1}'],
    ['{"__proto__":1.00000000000000000001,"a":1}', '{"__proto__":"1.00000000000000000001","a":1}'],
    ['{"a":{"n":[0.1000000000000000055]},"b":1}', '{"a":{"n":["0.1000000000000000055"]},"b":1}'],
  ])('the key of several columns is exact, %s', (json, key) => {
    const row = parseExact(json) as Row;
    const live = new LiveRows();
    live.replace([row], Object.keys(row));
    expect([...live.rows.keys()]).toEqual([key]);
    const change = { type: 'change', effect: 'remove', id: idOf(json), tx: '1', last: true, pos: 'e1.2' };
    live.apply(change as ChangeFrame);
    expect(live.rows.size).toBe(0);
  });
});

test('the values of rows are JavaScript numbers', () => {
  expect(rowOf('0.1000000000000000055').row).toEqual({ k: 0.1, v: 1 });
});
