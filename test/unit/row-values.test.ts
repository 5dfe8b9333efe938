// Which values REST accepts for each type of column, with which message it refuses the others, and keys in URLs.

import * as fc from 'fast-check';
import { describe, expect, test } from 'vitest';
import type { Column, Table } from '#gateway/catalog/catalog.ts';
import { formatSegment } from '#gateway/http/row-address.ts';
import { parseKey } from '#gateway/http/row-key.ts';
import { type RowSchemas, rowSchemas } from '#gateway/http/row-values.ts';
import { keepDigits } from '#shared/exact-json.ts';

function column(name: string, base: string, over: Partial<Column> = {}): Column {
  return { name, type: base, base, nullable: false, optional: false, writable: true, ...over };
}

function tableOf(columns: Column[], keyColumns = [columns[0]!.name]): Table {
  return {
    id: 1,
    name: 'things',
    schema: 'public',
    table: 'things',
    keyColumns,
    columns,
    imageSql: 'to_json(t)',
    version: '',
    largeSql: null,
    rowBytes: 1_000_000,
    policies: [],
    policiesVersion: null,
  };
}

/** As the body parser does it. */
function read(schema: RowSchemas['create'], json: string): { values: unknown } | { problems: string[] } {
  const result = schema.safeParse(JSON.parse(json, keepDigits));
  if (result.success)
    return { values: Object.fromEntries(result.data.map((value) => [value.column.name, value.text])) };
  return {
    problems: result.error.issues.flatMap((issue) =>
      issue.code === 'unrecognized_keys'
        ? issue.keys.map((key) => `${key} unknown`)
        : [[issue.path.join('.'), issue.message].filter(Boolean).join(' ')],
    ),
  };
}

/** [base, type, JSON of the value, the text for Postgres] */
const accepted: [string, string, string, string][] = [
  ['int2', 'smallint', '-32768', '-32768'],
  ['int4', 'integer', '2147483647', '2147483647'],
  ['int4', 'integer', '1.0', '1'],
  ['int4', 'integer', '1e3', '1000'],
  ['int8', 'bigint', '9007199254740991', '9007199254740991'],
  ['int8', 'bigint', '9007199254740993', '9007199254740993'],
  ['int8', 'bigint', '"9223372036854775807"', '9223372036854775807'],
  ['int8', 'bigint', '-0', '-0'],
  ['float8', 'double precision', '0.1', '0.1'],
  ['float8', 'double precision', '1e-7', '1e-7'],
  ['float8', 'double precision', '"NaN"', 'NaN'],
  ['float4', 'real', '"-Infinity"', '-Infinity'],
  ['numeric', 'numeric', '12345678901234567890.120', '12345678901234567890.120'],
  ['numeric', 'numeric', '"1.50"', '1.50'],
  ['bool', 'boolean', 'false', 'false'],
  ['text', 'text', '""', ''],
  ['text', 'text', '"\\ud83d\\ude00"', '😀'],
  ['varchar', 'character varying(2)', '"😀😀"', '😀😀'],
  ['bpchar', 'character(3)', '"abc"', 'abc'],
  ['uuid', 'uuid', '"A0EEBC99-9C0B-4EF8-BB6D-6BB9BD380A11"', 'A0EEBC99-9C0B-4EF8-BB6D-6BB9BD380A11'],
  ['timestamptz', 'timestamptz', '"2026-02-28T23:59:59.123456+00:00"', '2026-02-28T23:59:59.123456+00:00'],
  ['timestamptz', 'timestamptz', '"2024-02-29 12:00Z"', '2024-02-29 12:00Z'],
  ['timestamptz', 'timestamptz', '"infinity"', 'infinity'],
  ['timestamp', 'timestamp', '"2026-01-31T12:00:00"', '2026-01-31T12:00:00'],
  ['date', 'date', '"0044-03-15 BC"', '0044-03-15 BC'],
  ['time', 'time', '"24:00:00"', '24:00:00'],
  ['jsonb', 'jsonb', '{"a":[1.0,null],"__proto__":{"b":1e400}}', '{"a":[1.0,null],"__proto__":{"b":1e400}}'],
  ['json', 'json', 'null', 'null'],
  ['_int4', 'integer[]', '[1,null,[2]]', '{"1",NULL,{"2"}}'],
  ['_text', 'text[]', '["a\\"b\\\\c,{}",""]', String.raw`{"a\"b\\c,{}",""}`],
  ['_text', 'text[]', '[]', '{}'],
  ['_jsonb', 'jsonb[]', '[[1],{"a":"b"}]', String.raw`{"[1]","{\"a\":\"b\"}"}`],
  ['positive', 'positive', '7', '7'],
  ['mood', 'mood', '"calm"', 'calm'],
];

/** [base, type, JSON of the value, the message] */
const refused: [string, string, string, string][] = [
  ['int2', 'smallint', '32768', 'v must be a whole number between -32768 and 32767'],
  ['int4', 'integer', '1.5', 'v must be a whole number between -2147483648 and 2147483647'],
  ['int4', 'integer', '"1"', 'v must be a whole number between -2147483648 and 2147483647'],
  ['int4', 'integer', '1e999', 'v must be a whole number between -2147483648 and 2147483647'],
  ['int4', 'integer', 'null', 'v must not be null'],
  [
    'int8',
    'bigint',
    '9223372036854775808',
    'v must be a whole number between -9223372036854775808 and 9223372036854775807',
  ],
  ['int8', 'bigint', '"abc"', 'v must be a whole number between -9223372036854775808 and 9223372036854775807'],
  ['int8', 'bigint', '{}', 'v must be a whole number between -9223372036854775808 and 9223372036854775807'],
  ['float8', 'double precision', '1e309', 'v must be a number that fits 64 bits'],
  ['float8', 'double precision', '"1"', 'v must be a number'],
  ['float4', 'real', '1e39', 'v must be a number that fits 32 bits'],
  ['numeric', 'numeric', '"1,5"', 'v must be a number, or a number as text'],
  ['numeric', 'numeric', 'true', 'v must be a number, or a number as text'],
  ['bool', 'boolean', '"true"', 'v must be true or false'],
  ['bool', 'boolean', '1', 'v must be true or false'],
  ['text', 'text', '5', 'v must be text'],
  ['text', 'text', '"a\\u0000b"', 'v must not contain the character \\u0000'],
  ['text', 'text', '"\\ud800"', 'v must not contain half of a surrogate pair'],
  ['varchar', 'character varying(2)', '"abc"', 'v must be text of at most 2 characters'],
  ['uuid', 'uuid', '"a0eebc99"', 'v must be a UUID'],
  [
    'timestamptz',
    'timestamptz',
    '"2026-01-31T12:00:00"',
    'v must be a date and time with its offset, like 2026-01-31T12:00:00Z',
  ],
  [
    'timestamptz',
    'timestamptz',
    '"2026-02-30T12:00:00Z"',
    'v must be a date and time with its offset, like 2026-01-31T12:00:00Z',
  ],
  ['timestamptz', 'timestamptz', '1767225600', 'v must be a date and time with its offset, like 2026-01-31T12:00:00Z'],
  [
    'timestamp',
    'timestamp',
    '"2026-01-31T12:00:00Z"',
    'v must be a date and time without offset, like 2026-01-31T12:00:00',
  ],
  ['date', 'date', '"2026-13-01"', 'v must be a date, like 2026-01-31'],
  ['date', 'date', '"yesterday"', 'v must be a date, like 2026-01-31'],
  ['time', 'time', '"25:00"', 'v must be a time of day, like 12:00:00'],
  ['_int4', 'integer[]', '[1,"x"]', 'v.1 must be a whole number between -2147483648 and 2147483647'],
  ['_int4', 'integer[]', '[[[[[[[1]]]]]]]', 'v.0.0.0.0.0.0 must be a whole number between -2147483648 and 2147483647'],
  ['_int4', 'integer[]', '"{1}"', 'v must be an array for integer[]'],
  ['mood', 'mood', '{"a":1}', 'v must be text that Postgres reads as mood'],
  ['mood', 'mood', '"\\u0000"', 'v must not contain the character \\u0000'],
];

describe('values', () => {
  test.each(accepted)('%s (%s) takes %s', (base, type, json, text) => {
    const table = tableOf([column('v', base, { type })]);
    expect(read(rowSchemas(table).create, `{"v":${json}}`)).toEqual({ values: { v: text } });
  });

  test.each(refused)('%s (%s) refuses %s', (base, type, json, message) => {
    const table = tableOf([column('v', base, { type })]);
    expect(read(rowSchemas(table).create, `{"v":${json}}`)).toEqual({ problems: [message] });
  });

  test.each([...new Set(accepted.map(([base, type]) => `${base} ${type}`))])(
    'a column of %s is required, nullable or optional as declared',
    (pair) => {
      const [base, ...type] = pair.split(' ');
      const make = (over: Partial<Column>) =>
        rowSchemas(tableOf([column('v', base!, { type: type.join(' '), ...over })]));
      expect(read(make({}).create, '{}')).toEqual({ problems: ['v is required'] });
      expect(read(make({ nullable: true, optional: true }).create, '{"v":null}')).toEqual({ values: { v: null } });
      expect(read(make({ optional: true }).create, '{}')).toEqual({ values: {} });
      expect(read(make({ writable: false }).create, '{"v":null}')).toEqual({ problems: ['v is read-only'] });
    },
  );
});

describe('objects', () => {
  const items = tableOf([
    column('id', 'int8', { optional: true, writable: false }),
    column('name', 'text'),
    column('value', 'float8', { nullable: true, optional: true }),
  ]);
  const pairs = tableOf([column('a', 'text'), column('b', 'int4'), column('note', 'text')], ['a', 'b']);

  test.each([
    ['create', '{"name":"x"}', { values: { name: 'x' } }],
    ['create', '{}', { problems: ['name is required'] }],
    ['create', '{"name":"x","nmae":1,"toString":1}', { problems: ['nmae unknown', 'toString unknown'] }],
    ['create', '{"name":"x","__proto__":{"id":1}}', { problems: ['__proto__ unknown'] }],
    ['create', '{"id":1,"name":"x"}', { problems: ['id is read-only'] }],
    ['create', '{"name":1,"value":"y"}', { problems: ['name must be text', 'value must be a number'] }],
    ['create', '[]', { problems: ['The body must be a JSON object'] }],
    ['create', 'null', { problems: ['The body must be a JSON object'] }],
    ['create', '12345678901234567890', { problems: ['The body must be a JSON object'] }],
    ['replace', '{"value":1}', { problems: ['name is required'] }],
    ['patch', '{"value":null}', { values: { value: null } }],
    ['patch', '{}', { problems: ['The body must have at least one field'] }],
    ['patch', '{"name":null}', { problems: ['name must not be null'] }],
  ] as const)('%s reads %s as it should', (kind, json, expected) => {
    expect(read(rowSchemas(items)[kind], json)).toEqual(expected);
  });

  test('replace takes the key from the URL', () => {
    expect(read(rowSchemas(pairs).replace, '{"note":"n"}')).toEqual({ values: { note: 'n' } });
    expect(read(rowSchemas(pairs).create, '{"note":"n"}')).toEqual({ problems: ['a is required', 'b is required'] });
  });
});

describe('keys', () => {
  const byId = tableOf([column('id', 'int8')]);
  const byText = tableOf([column('id', 'text')]);
  const pairs = tableOf([column('a', 'text'), column('b', 'int4')], ['a', 'b']);

  test.each([
    [byId, '7', ['7']],
    [byId, '9223372036854775807', ['9223372036854775807']],
    [byText, 'a,b%2Fc', ['a,b/c']],
    [pairs, 'A%2C1,7', ['A,1', '7']],
    [pairs, ',7', ['', '7']],
    [tableOf([column('id', 'bool')]), 'false', ['false']],
    [tableOf([column('id', 'float8')]), '1.5', ['1.5']],
  ])("a URL's key is read, %#", (table, segment, values) => {
    expect(parseKey(table, segment)).toEqual({ ok: true, values });
  });

  test.each([
    [byId, 'abc', 'id', 'must be a whole number between -9223372036854775808 and 9223372036854775807'],
    [byId, '9223372036854775808', 'id', 'must be a whole number between -9223372036854775808 and 9223372036854775807'],
    [byId, '1.0', 'id', 'must be a whole number between -9223372036854775808 and 9223372036854775807'],
    [byId, '1%00', 'id', 'must not contain the character \\u0000'],
    [byText, '%00', 'id', 'must not contain the character \\u0000'],
    [pairs, 'A', 'id', 'must be 2 values with commas between them: a,b'],
    [pairs, 'A,x', 'b', 'must be a whole number between -2147483648 and 2147483647'],
    [tableOf([column('id', 'bool')]), 'yes', 'id', 'must be true or false'],
    [tableOf([column('id', 'int4')]), '', 'id', 'must be a whole number between -2147483648 and 2147483647'],
  ])("a URL's key is refused, %#", (table, segment, path, message) => {
    expect(parseKey(table, segment)).toEqual({ ok: false, fields: [{ path, message }] });
  });

  test('a key that was written into a URL is read as it was', () => {
    const printable = fc.string({ unit: 'grapheme' }).filter((text) => !text.includes('\0'));
    fc.assert(
      fc.property(printable, fc.integer({ min: -(2 ** 31), max: 2 ** 31 - 1 }), (a, b) => {
        expect(parseKey(pairs, formatSegment([a, String(b)]))).toEqual({ ok: true, values: [a, String(b)] });
      }),
    );
  });
});
