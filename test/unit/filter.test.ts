// Which filters are accepted, refused, and the same. What they mean is in filter-meaning.test.ts.

import * as fc from 'fast-check';
import { describe, expect, test } from 'vitest';
import { FilterError, parseFilter } from '#gateway/filter/parse.ts';
import { filterSql } from '#gateway/filter/sql.ts';
import { admits, keyOf, nested, parse, refusal, table } from '../support/truth/filters.ts';

describe('refusals', () => {
  test.each<[unknown, string | RegExp]>([
    [null, 'where must be an object'],
    ['[]', 'where must be an object'],
    ['7', 'where must be an object'],
    ['9007199254740993', 'where must be an object'],
    ['"x"', 'where must be an object'],
    [undefined, 'where must be an object'],
    [{ nope: 1 }, 'where.nope is not a column of things'],
    ['{"__proto__":1}', 'where.__proto__ is not a column of things'],
    ['{"__proto__":{"n":1}}', 'where.__proto__ is not a column of things'],
    [{ constructor: 1 }, 'where.constructor is not a column of things'],
    [{ or: [{ n: 1 }, { toString: 1 }] }, 'where.or.1.toString is not a column of things'],
    [{ n: {} }, 'where.n must be a value, null, or an object with an operator'],
    [{ n: { like: 1 } }, 'where.n.like is no operator: use eq, ne, gt, gte, lt, lte, in or is'],
    ['{"n":{"__proto__":1}}', /^where\.n\.__proto__ is no operator/],
    [{ n: { constructor: 1 } }, /^where\.n\.constructor is no operator/],
    [{ n: { length: 2, 0: 1, 1: 2 } }, /^where\.n\.0 is no operator/],
    [{ n: [1] }, /^where\.n must be a whole number/],
    [{ n: { eq: [1] } }, /^where\.n\.eq must be a whole number/],
    [{ n: { eq: { rawJSON: '1' } } }, /^where\.n\.eq must be a whole number/],
    [{ n: { eq: null } }, 'where.n.eq must not be null: use {"is": null} or {"is": "not null"}'],
    [{ n: { ne: null } }, /^where\.n\.ne must not be null/],
    [{ n: { in: [1, null] } }, /^where\.n\.in\.1 must not be null/],
    [{ n: { is: 'null' } }, 'where.n.is must be null or "not null"'],
    [{ n: { in: 1 } }, 'where.n.in must be an array of at most 100 values'],
    [{ n: { in: { length: 2, 0: 1, 1: 2 } } }, /^where\.n\.in must be an array/],
    [{ or: { length: 2, 0: {}, 1: {} } }, 'where.or must be an array of filters'],
    [{ or: 1 }, 'where.or must be an array of filters'],
    [{ or: [1] }, 'where.or.0 must be an object'],
    [{ or: [[{ n: 1 }]] }, 'where.or.0 must be an object'],
    [{ not: [] }, 'where.not must be an object'],
    [{ not: null }, 'where.not must be an object'],
    [{ meta: 1 }, 'where.meta is of type jsonb, which filters cannot compare'],
    [{ meta: null }, 'where.meta is of type jsonb, which filters cannot compare'],
    ...['tags', 'raw', 'email', 'hour', 'span', 'ip', 'positive', 'letter', 'impostor', 'quoted'].map(
      (name): [unknown, RegExp] => [{ [name]: { is: null } }, /which filters cannot compare$/],
    ),
    [{ folded: 'a' }, 'where.folded has a non-deterministic collation, which filters cannot compare'],
  ])('a filter is refused with its path, %#: %j', (where, message) => {
    const error = refusal(where);
    if (typeof message === 'string') expect(error.message).toBe(message);
    else expect(error.message).toMatch(message);
    expect(error.message).toBe(`${error.path} ${error.problem}`);
  });

  test.each<[string, () => unknown, RegExp]>([
    [
      '101 values',
      () => ({ n: { in: Array.from({ length: 101 }, () => 1) } }),
      /^where\.n\.in must be an array of at most/,
    ],
    [
      '4e9 values',
      () => ({ n: { in: Object.assign([], { length: 4e9 }) } }),
      /^where\.n\.in must be an array of at most/,
    ],
    ['4e9 terms', () => ({ or: Object.assign([], { length: 4e9 }) }), /^where\.or is too much/],
    ['10,000 terms', () => ({ or: Array.from({ length: 10_000 }, () => ({ n: 1 })) }), /^where\.or is too much/],
    [
      '100 terms',
      () => ({ or: Array.from({ length: 100 }, () => ({ n: 1 })) }),
      /^where\.or\.99\.n is too much: a filter has at most 100 nodes$/,
    ],
    ['9 levels', () => nested(9, 'not'), /^where(\.not){8} is too deep: a filter has at most 8 levels$/],
    ['1,000 levels', () => nested(1_000, 'not'), /is too deep/],
    ['100,000 levels', () => nested(100_000, 'and'), /is too deep/],
    ['a long column', () => ({ [`k${'x'.repeat(1e6)}`]: 1 }), /^where\.kx{99}… is not a column/],
    ['a long operator', () => ({ n: { [`k${'x'.repeat(1e6)}`]: 1 } }), /^where\.n\.kx{99}… is no operator/],
  ])('a hostile filter is refused in a short message: %s', (_name, where, message) => {
    const error = refusal(where());
    expect(error.message).toMatch(message);
    expect(error.message.length).toBeLessThan(300);
  });

  test.each(['ok', 'id', 'mood'])('a filter cannot order by %s', (name) => {
    for (const operator of ['gt', 'gte', 'lt', 'lte'])
      expect(refusal({ [name]: { [operator]: 'x' } }).message).toMatch(/ cannot compare this type of column/);
  });

  test.each<[string, string[]]>([
    ['ok', ['"true"', '1', '0']],
    ['small', ['32768', '-32769', '1.5', '"1"', 'true', '1e400']],
    ['n', ['2147483648', '"1"', '1e10', '0.5', '-1.5e-3']],
    [
      'big',
      [
        '9223372036854775808',
        '"9223372036854775808"',
        '""',
        '" 1"',
        '"1.0"',
        '"0x10"',
        '1e19',
        '9007199254740993.0',
        'true',
      ],
    ],
    ['real', ['"1"', '"NaN"', '1e400', 'true']],
    ['ratio', ['"NaN"', '"Infinity"', '1e400', '-1e400', '""']],
    [
      'amount',
      [
        '"NaN"',
        '"Infinity"',
        '"-Infinity"',
        '""',
        '"."',
        '".5"',
        '"5."',
        '"+1"',
        '" 1"',
        '"1_0"',
        '"0x1"',
        '1e1001',
        '1e-2000',
        '1e99999',
        `"${'9'.repeat(1001)}"`,
        'true',
      ],
    ],
    ['name', ['1', 'true', String.raw`"a\u0000"`, String.raw`"\ud83d"`, `"${'x'.repeat(10_001)}"`]],
    ['fixed', ['1', String.raw`"\udc00"`]],
    ['mood', ['1']],
    ['id', ['"a0eebc999c0b4ef8bb6d6bb9bd380a11"', '"{a0eebc99-9c0b-4ef8-bb6d-6bb9bd380a11}"', '""', '1']],
    [
      'day',
      [
        '"2026-02-30"',
        '"2026-13-01"',
        '"2026-00-01"',
        '"2026-01-00"',
        '"2025-02-29"',
        '"1900-02-29"',
        '"0000-01-01"',
        '"26-01-01"',
        '"20260101"',
        '"today"',
        '"Infinity"',
        '"2026-01-01T00:00:00"',
        '"4714-11-23 BC"',

        '"5874898-01-01"',
        '1',
        '"2026-01-01 bc"',
      ],
    ],
    [
      'local',
      [
        '"2026-01-01"',
        '"2026-01-01T00:00:00Z"',
        '"2026-01-01T24:00:00"',
        '"2026-01-01T23:59:60"',
        '"2026-01-01T00:60"',
        '"2026-01-01T00:00:00.1234567"',
        '"294277-01-01T00:00:00"',
        '"2026-01-01 00:00:00"',
        '"now"',
      ],
    ],
    [
      'at',
      [
        '"2026-01-01T00:00:00"',
        '"2026-01-01T00:00:00+16"',
        '"2026-01-01T00:00:00+01:60"',
        '"2026-01-01T00:00:00 UTC"',
        '"294276-12-31T23:59:59.999999-00:01"',
        '"4714-11-24T00:00:00+00:01 BC"',
        '1767225600000',
      ],
    ],
  ])('a wrong value of %s is refused', (name, values) => {
    for (const value of values)
      expect(refusal(`{"${name}":${value}}`).message).toMatch(new RegExp(`^where\\.${name} must be `));
    expect(refusal(`{"${name}":{"in":[${values[0]}]}}`).path).toBe(`where.${name}.in.0`);
  });

  test('a number that JavaScript has rounded already is refused', () => {
    for (const name of ['big', 'amount']) expect(refusal({ [name]: 2 ** 53 }).path).toBe(`where.${name}`);
    expect(keyOf({ big: '9007199254740993' })).toBe(keyOf('{"big":9007199254740993}'));
  });

  test('an unknown column has its own code', () => {
    expect(refusal({ nope: 1 }).code).toBe('UNKNOWN_COLUMN');
    expect(refusal({ n: 'x' }).code).toBe('INVALID_FILTER');
  });

  test('parsing throws nothing but a FilterError, whatever it gets', () => {
    const anything = fc.anything({ withNullPrototype: true, withSparseArray: true });
    const names = fc.constantFrom('and', 'or', 'not', 'n', 'name', 'amount', 'at', 'eq', 'in', 'is', '__proto__');
    const shaped = fc.letrec<{ filter: unknown }>((tie) => ({
      filter: fc.oneof(
        { maxDepth: 6 },
        anything,
        fc.dictionary(names, tie('filter'), { maxKeys: 3 }),
        fc.array(tie('filter'), { maxLength: 3 }),
      ),
    })).filter;
    fc.assert(
      fc.property(shaped, (where) => {
        try {
          filterSql(parseFilter(table, where), 1);
        } catch (error) {
          if (!(error instanceof FilterError)) throw error;
        }
      }),
      { numRuns: 500 },
    );
  });
});

describe('the normal form', () => {
  test.each<[string, unknown[]]>([
    [
      'eq',
      [
        { n: 1 },
        { n: { eq: 1 } },
        '{"n":1.0}',
        '{"n":1e0}',
        { and: [{ n: 1 }] },
        { and: [{ and: [{ n: 1 }] }, {}] },
        { or: [{ n: 1 }, { n: 1 }] },
        { n: { in: [1, 1] } },
        { not: { n: { ne: 1 } } },
        { 'column:n': 1 },
      ],
    ],
    [
      'order of members',
      [{ n: 1, m: 2 }, { m: 2, n: 1 }, { and: [{ m: 2 }, { n: 1 }] }, { and: [{ and: [{ n: 1 }], m: 2 }] }],
    ],
    ['order of terms', [{ or: [{ n: 1 }, { m: 2 }, { k: 3 }] }, { or: [{ k: 3 }, { or: [{ m: 2 }, { n: 1 }] }] }]],
    ['order of values', [{ n: { in: [10, 9, 1] } }, { n: { in: [1, 9, 10, 9] } }]],
    ['null', [{ n: null }, { n: { is: null } }, { not: { n: { is: 'not null' } } }]],
    ['true', [{}, { and: [] }, { not: { or: [] } }, { or: [{ n: 1 }, {}] }, { not: { n: { in: [] } } }]],
    ['false', [{ or: [] }, { not: {} }, { n: { in: [] } }, { n: 1, or: [] }]],
    [
      'numeric',
      [{ amount: 12.5 }, '{"amount":12.50}', { amount: '0012.5000' }, '{"amount":1.25e1}', { amount: '125e-1' }],
    ],
    ['zero', [{ amount: 0 }, '{"amount":-0.00}', '{"amount":0e5}']],
    ['zero of a double', [{ ratio: 0 }, '{"ratio":-0}', '{"ratio":-0.0}', '{"ratio":1e-400}']],
    ['bigint', [{ big: 5 }, { big: '5' }, { big: '005' }]],
    ['uuid', [{ id: 'A0EEBC99-9C0B-4EF8-BB6D-6BB9BD380A11' }, { id: 'a0eebc99-9c0b-4ef8-bb6d-6bb9bd380a11' }]],
    ['char(n)', [{ fixed: 'ab' }, { fixed: 'ab   ' }, { fixed: 'ab            ' }]],
    [
      'timestamptz',
      [
        { at: '2026-01-01T00:30:00Z' },
        { at: '2026-01-01T02:30:00.000+02:00' },
        { at: '2025-12-31T23:30-01' },
        { at: '2026-01-01T06:15+0545' },
      ],
    ],
  ])('filters that mean the same have one key: %s', (_name, filters) => {
    expect(new Set(filters.map(keyOf)).size).toBe(1);
  });

  test('filters that mean different things have different keys', () => {
    const filters: unknown[] = [
      {},
      { or: [] },
      { n: 1 },
      { m: 1 },
      { n: 2 },
      { n: { ne: 1 } },
      { n: null },
      { n: { gt: 1 } },
      { n: { gte: 1 } },
      { n: { lt: 1 } },
      { n: 1, m: 1 },
      { or: [{ n: 1 }, { m: 1 }] },
      { not: { n: 1, m: 1 } },
      { n: { in: [1, 2] } },
      { n: { in: [12] } },
      { name: '1' },
      { name: '1 ' },
      { name: 'null' },
      { name: '","' },
      { name: { in: ['', ','] } },
      { name: { in: [','] } },
      { name: '' },
      { name: 'é' },
      { name: 'e\u0301' },
      '{"amount":0.1}',
      '{"amount":0.1000000000000000055}',
      { amount: -0.1 },
      { amount: 1 },
      { amount: 10 },
      { and: [{ or: [{ n: 1 }, { m: 1 }] }, { k: 1 }] },
      { or: [{ n: 1 }, { m: 1, k: 1 }] },
      { day: 'infinity' },
      { day: '-infinity' },
      { 'column:and': 1 },
      { 'column:column:x': 1 },
      { 'odd "name': 1 },
    ];
    expect(new Set(filters.map(keyOf)).size).toBe(filters.length);
  });

  test('the largest allowed filter is accepted', () => {
    const terms = Array.from({ length: 99 }, (_, index) => ({ n: index }));
    const where = { or: terms.slice(1), m: { in: Array.from({ length: 100 }, (_, index) => index) } };
    expect(filterSql(parse(where), 1).values).toHaveLength(99);
    expect(admits(nested(8, 'not'), { n: 2 })).toBe(true);
    expect(admits({ name: 'x'.repeat(10_000) }, { name: 'x'.repeat(10_000) })).toBe(true);
  });
});
