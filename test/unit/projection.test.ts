// A projection keeps the bytes of its columns, whatever the other columns hold.

import * as fc from 'fast-check';
import { describe, expect, test } from 'vitest';
import { keyIn, project } from '#gateway/channels/projection.ts';

const cut = (image: string, ...columns: string[]) => project(Buffer.from(image), new Set(columns))!.toString();

describe('projection', () => {
  test.each([
    ['{}', ['a'], '{}'],
    ['{"a":1}', [], '{}'],
    ['{"a":1,"b":2}', ['b', 'c'], '{"b":2}'],
    ['{"a":1,"b":2,"c":3}', ['c', 'a'], '{"a":1,"c":3}'],
    ['{"n":12345678901234567890.1230,"x":1e400}', ['n'], '{"n":12345678901234567890.1230}'],
    ['{"t":"}],\\"{[\\\\","b":"\\\\"}', ['b'], '{"b":"\\\\"}'],
    ['{"j":{"b": [1, {"b":"]}"}]} ,"b":null}', ['b'], '{"b":null}'],
    ['{"j": {"a":\n[1 , 2]},"b":true}', ['j'], '{"j": {"a":\n[1 , 2]}}'],
    ['{"a\\"b":1,"ü":2,"\\u00e4":3,"":4}', ['a"b', 'ü', 'ä', ''], '{"a\\"b":1,"ü":2,"\\u00e4":3,"":4}'],
    ['{"__proto__":1,"constructor":2}', ['constructor'], '{"constructor":2}'],
  ])("a projection of %s keeps the columns' bytes", (image, columns, expected) => {
    expect(cut(image, ...columns)).toBe(expected);
  });

  test('a projection of a partial image is null where a column was left out', () => {
    const image = Buffer.from(' {"a":1,"n":123456789012345678901,"t":"x"}');
    expect(project(image, new Set(['n', 'a']))!.toString()).toBe('{"a":1,"n":123456789012345678901}');
    expect(project(image, new Set(['n', 'large']))).toBe(null);
    expect(keyIn(image, ['n'])!.toString()).toBe('123456789012345678901');
    expect(keyIn(image, ['t', 'a'])!.toString()).toBe('{"t":"x","a":1}');
    expect(keyIn(Buffer.from(' {}'), ['t'])).toBe(null);
  });

  test('a projection equals parsing, choosing and writing', () => {
    const spacing = fc.constantFrom('', ' ', '\n', ' \t\r\n');
    const member = fc.tuple(fc.string({ unit: 'binary' }), spacing, fc.json(), spacing);
    const members = fc.uniqueArray(member, { selector: ([name]) => name, maxLength: 8 });
    fc.assert(
      fc.property(members, fc.infiniteStream(fc.boolean()), (all, choice) => {
        const write = (some: typeof all) =>
          `{${some.map(([name, before, value]) => `${JSON.stringify(name)}:${before}${value}`).join(',')}}`;
        const image = `{${all.map(([name, before, value, after]) => `${JSON.stringify(name)}:${before}${value}${after}`).join(',')}}`;
        const kept = all.filter(() => choice.next().value);
        const result = cut(image, ...kept.map(([name]) => name));
        expect(JSON.stringify(JSON.parse(result))).toBe(JSON.stringify(JSON.parse(write(kept))));
        // bytes, not only their meaning
        for (const [name, before, value] of kept) expect(result).toContain(`${JSON.stringify(name)}:${before}${value}`);
      }),
      { numRuns: 500 },
    );
  });
});
