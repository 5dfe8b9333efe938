// Owns values that JavaScript and Postgres could judge differently: for each type that filters know, rows and operands that are
// hard, and few enough to meet each other. It makes filters over all of them.

import * as fc from 'fast-check';

interface Kind {
  type: string;
  ordered: boolean;
  /** texts that Postgres reads */
  rows: fc.Arbitrary<string>;
  /** JSON that a filter may hold */
  values: fc.Arbitrary<string>;
}

const quoted = JSON.stringify;

/** Few enough to meet each other, and hard. */
const hard = fc.constantFrom;

const integers = (bits: bigint): fc.Arbitrary<string> => {
  const max = 2n ** (bits - 1n) - 1n;
  const near = [0n, 1n, -1n, 10n, 9n, max, max - 1n, -max, -max - 1n];
  if (bits === 64n) near.push(2n ** 53n, 2n ** 53n + 1n, 2n ** 53n + 2n, -(2n ** 53n) - 1n, 2n ** 63n - 512n);
  return fc.oneof(hard(...near), fc.bigInt({ min: -max - 1n, max })).map(String);
};

const decimalText = fc
  .tuple(
    hard('', '-'),
    fc.stringMatching(/^[0-9]{1,25}$/),
    fc.option(fc.stringMatching(/^[0-9]{1,25}$/), { nil: undefined }),
  )
  .map(
    ([sign, whole, fraction]) => sign + whole.replace(/^0+(?=\d)/, '') + (fraction === undefined ? '' : `.${fraction}`),
  );
const decimals = fc.oneof(
  hard(
    '0',
    '-0',
    '0.00',
    '0.1',
    '0.10',
    '0.1000000000000000055',
    '0.1000000000000000056',
    '-0.1',
    '1',
    '10',
    '9',
    '9.99',
    '9007199254740993',
    '9007199254740992',
    '1e-30',
    '12.5e3',
    '-1e30',
    '1e30',
  ),
  decimalText,
);

const doubles = fc.oneof(
  hard(
    '0',
    '-0',
    '0.1',
    '1',
    '-1',
    '1e308',
    '-1e308',
    '5e-324',
    '1e21',
    '9007199254740993',
    '0.30000000000000004',
    '3.4028234663852886e38',
  ),
  fc.double({ noNaN: true, noDefaultInfinity: true }).map(String),
);
const reals = fc.oneof(
  hard('0', '0.1', '16777217', '16777216', '1e-45', '3.4028235e38', '-1.5'),
  fc.float({ noNaN: true, noDefaultInfinity: true }).map((value) => Math.fround(value).toPrecision(9)),
);

const characters = hard(
  'a',
  'b',
  'A',
  'z',
  'é',
  'e\u0301',
  'ß',
  ' ',
  '\t',
  '"',
  '\\',
  '\u{ffff}',
  '\ue000',
  '\ud7ff',
  '😀',
  '😁',
  '𐀀',
  '\u{10ffff}',
  '\u00a0',
  '\u200b',
  'İ',
  'ı',
  '1',
  '_',
  '%',
  "'",
  '\n',
  '\u0001',
  '\u007f',
  '\u2028',
  '{',
  ',',
);
const texts = fc.oneof(
  hard('', ' ', 'a', 'a ', 'a\t', 'ab', 'A', 'null', 'NULL', '{}'),
  fc.string({ unit: characters, maxLength: 4 }),
);

const uuids = hard(
  'a0eebc99-9c0b-4ef8-bb6d-6bb9bd380a11',
  'A0EEBC99-9C0B-4EF8-BB6D-6BB9BD380A11',
  '00000000-0000-0000-0000-000000000000',
  'ffffffff-ffff-ffff-ffff-ffffffffffff',
);

const pad = (value: number, length = 2): string => String(value).padStart(length, '0');
const days = fc.oneof(
  hard(
    '2026-01-31',
    '2026-02-01',
    '0001-01-01',
    '0001-12-31 BC',
    '0004-02-29',
    '0005-02-28 BC',
    '0001-02-29 BC',
    '4714-11-24 BC',
    '9999-12-31',
    '10000-01-01',
    '2000-02-29',
    '1970-01-01',
    '1969-12-31',
    '294276-12-31',
  ),
  fc
    .tuple(
      hard('', ' BC'),
      fc.oneof(fc.integer({ min: 1, max: 4000 }), fc.integer({ min: 1900, max: 2100 })),
      fc.integer({ min: 1, max: 12 }),
      fc.integer({ min: 1, max: 28 }),
    )
    .map(([era, year, month, day]) => `${pad(year, 4)}-${pad(month)}-${pad(day)}${era}`),
);
const clocks = fc.oneof(
  hard('00:00:00', '23:59:59.999999', '16:01:26.690077', '16:01:26.69', '12:00', '00:00:00.000001'),
  fc
    .tuple(
      fc.integer({ min: 0, max: 23 }),
      fc.integer({ min: 0, max: 59 }),
      fc.integer({ min: 0, max: 59 }),
      fc.integer({ min: 0, max: 999_999 }),
    )
    .map(([hour, minute, second, micros]) => `${pad(hour)}:${pad(minute)}:${pad(second)}.${pad(micros, 6)}`),
);
const infinities = hard('infinity', '-infinity');
const moments = (offsets: fc.Arbitrary<string>) =>
  fc.tuple(days, clocks, offsets).map(([day, clock, offset]) => {
    const [date, era] = day.split(' ');
    const inUtc = /^(4714|294276)/.test(day) && offset !== ''; // with another offset it would be out of range
    return `${date}T${clock}${inUtc ? 'Z' : offset}${era === undefined ? '' : ' BC'}`;
  });
const locals = fc.oneof({ arbitrary: moments(fc.constant('')), weight: 9 }, { arbitrary: infinities, weight: 1 });
const instants = fc.oneof(
  { arbitrary: moments(hard('Z', '+00:00', '+02:00', '-07', '+0545', '+15:59', '-15:59')), weight: 9 },
  { arbitrary: infinities, weight: 1 },
);

const of = (type: string, ordered: boolean, rows: fc.Arbitrary<string>, values: fc.Arbitrary<string>): Kind => ({
  type,
  ordered,
  rows,
  values,
});
const asString = (arbitrary: fc.Arbitrary<string>) => arbitrary.map((value) => quoted(value));
const special = (arbitrary: fc.Arbitrary<string>, ...values: string[]) =>
  fc.oneof({ arbitrary, weight: 6 }, { arbitrary: hard(...values), weight: 1 });
const label = hard('calm', 'wild', 'Wild', 'a "quoted" one', 'é😀');

export const kinds: Record<string, Kind> = {
  ok: of('boolean', false, hard('true', 'false'), hard('true', 'false')),
  small: of('smallint', true, integers(16n), integers(16n)),
  n: of('integer', true, integers(32n), integers(32n)),
  big: of('bigint', true, integers(64n), fc.oneof(integers(64n), asString(integers(64n)))),
  ratio: of('float8', true, special(doubles, 'NaN', 'Infinity', '-Infinity'), doubles),
  narrow: of('real', true, special(reals, 'NaN', 'Infinity', '-Infinity'), fc.oneof(reals, doubles)),
  amount: of(
    'numeric',
    true,
    special(decimals, 'NaN', 'Infinity', '-Infinity'),
    fc.oneof(decimals, asString(decimals)),
  ),
  price: of(
    'numeric(12,3)',
    true,
    special(
      fc.oneof(
        hard('0', '0.1', '9.99', '10'),
        fc.integer({ min: -1e8, max: 1e8 }).map((value) => (value / 1000).toFixed(3)),
      ),
      'NaN',
    ),
    decimals,
  ),
  name: of('text', true, texts, asString(texts)),
  'odd "name': of('varchar(10)', true, texts, asString(texts)),
  localized: of('text collate "en-x-icu"', true, texts, asString(texts)),
  fixed: of('char(5)', true, texts, asString(texts)),
  padded: of('bpchar', true, texts, asString(texts)),
  uid: of('uuid', false, uuids, asString(uuids)),
  day: of(
    'date',
    true,
    special(days, 'infinity', '-infinity', '5874897-12-31', '300000-01-01'),
    asString(special(days, 'infinity', '-infinity', '5874897-12-31')),
  ),
  local: of('timestamp', true, locals, asString(locals)),
  rounded: of(
    'timestamp(1)',
    true,
    locals.filter((text) => !text.startsWith('294276')),
    asString(locals),
  ),
  at: of('timestamptz', true, instants, asString(instants)),
  mood: of('mood', false, label, asString(fc.oneof(label, fc.constant('unheard of')))),
  and: of('integer', true, hard('1', '2'), hard('1', '2', '3')),
};
export const names = Object.keys(kinds);
export const memberName = (name: string): string => quoted(name === 'and' ? 'column:and' : name);

export const refusedTypes = [
  'json',
  'jsonb',
  'integer[]',
  'mood[]',
  'bytea',
  'folded',
  'positive',
  'inet',
  'interval',
  'time',
  '"char"',
  'name',
  'pair',
  'text collate ignoring_case',
  'other.text',
  'oid',
  'bit(3)',
  'xml',
  'money',
  'int4range',
];

/** Filters as JSON text, so that digits stay exact. */
export const filters = fc.letrec<{ filter: string; member: string }>((tie) => {
  const comparison = fc.constantFrom(...names).chain((name) => {
    const { ordered, values } = kinds[name]!;
    const single = fc
      .tuple(hard('eq', 'ne', ...(ordered ? ['gt', 'gte', 'lt', 'lte'] : [])), values)
      .map(([operator, value]) => `{"${operator}":${value}}`);
    const condition = fc.oneof(
      { arbitrary: single, weight: 6 },
      { arbitrary: values, weight: 2 },
      { arbitrary: fc.array(values, { maxLength: 5 }).map((list) => `{"in":[${list.join(',')}]}`), weight: 2 },
      { arbitrary: hard('null', '{"is":null}', '{"is":"not null"}'), weight: 1 },
      {
        arbitrary: fc
          .tuple(values, values)
          .map(([a, b]) => (ordered ? `{"gte":${a},"lt":${b}}` : `{"ne":${a},"in":[${a},${b}]}`)),
        weight: 1,
      },
    );
    return condition.map((text) => `${memberName(name)}:${text}`);
  });
  const some = fc.array(tie('filter'), { maxLength: 3 }).map((list) => `[${list.join(',')}]`);
  return {
    filter: fc.oneof(
      { maxDepth: 3, depthIdentifier: 'filter' },
      { arbitrary: comparison.map((text) => `{${text}}`), weight: 5 },
      { arbitrary: tie('member').map((text) => `{${text}}`), weight: 2 },
      { arbitrary: fc.tuple(comparison, tie('member')).map((parts) => `{${parts.join(',')}}`), weight: 1 },
    ),
    member: fc.oneof(
      { maxDepth: 3, depthIdentifier: 'filter' },
      comparison,
      some.map((list) => `"or":${list}`),
      some.map((list) => `"and":${list}`),
      tie('filter').map((text) => `"not":${text}`),
    ),
  };
}).filter;
