// Filters judged by JavaScript and by Postgres, row for row, over the values that are hard to agree on; and over REST.

import { createServer, type Server } from 'node:http';
import type { AddressInfo } from 'node:net';
import * as fc from 'fast-check';
import { pino } from 'pino';
import { Registry } from 'prom-client';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { type Filter, FilterError, parseFilter } from '../../services/gateway/filter.ts';
import { compileFilter, equalityOf, filterSql } from '../../services/gateway/filter-compile.ts';
import { parseImage } from '../../services/gateway/filter-image.ts';
import { indexKey } from '../../services/gateway/filter-types.ts';
import { createApp } from '../../services/gateway/http.ts';
import { keepDigits } from '../../services/gateway/row-schema.ts';
import { Catalog, type Table } from '../../shared/catalog.ts';
import { createPool, type Pool } from '../../shared/postgres.ts';
import { createDatabase, type TestDatabase } from '../support/servers.ts';

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

const kinds: Record<string, Kind> = {
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
const names = Object.keys(kinds);
const memberName = (name: string): string => quoted(name === 'and' ? 'column:and' : name);

const refusedTypes = [
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

/** As JSON text, so that digits are what they are. */
const filters = fc.letrec<{ filter: string; member: string }>((tie) => {
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

let database: TestDatabase;
let pool: Pool;
let catalog: Catalog;

beforeAll(async () => {
  database = await createDatabase();
  pool = createPool(database.url, {
    applicationName: 'filter test',
    statementTimeoutMs: 30_000,
    max: 2,
    onError: () => {},
  });
  const columns = names.map((name) => `"${name.replaceAll('"', '""')}" ${kinds[name]!.type}`);
  await pool.query(`
    create type mood as enum ('wild', 'calm', 'Wild', 'a "quoted" one', 'é😀');
    create type pair as (a integer, b integer);
    create domain positive as integer check (value > 0);
    create domain folded as text;
    create schema other;
    create domain other.text as pg_catalog.text;
    create collation ignoring_case (provider = icu, locale = 'und-u-ks-level2', deterministic = false);
    create table subject (id integer primary key, doc json, ${columns.join(', ')});
    create table refused (id integer primary key, ${refusedTypes.map((type, index) => `c${index} ${type}`).join(', ')});
    create table orders (id bigint primary key, status text, total numeric(20,2), placed timestamptz);
    insert into orders select i, case when i % 3 = 0 then null when i % 3 = 1 then 'open' else 'done' end, i * 1.5, '2026-01-01T00:00:00Z'::timestamptz + i * interval '1 hour' from generate_series(1, 50) i;
    select plank.attach('subject'), plank.attach('refused'), plank.attach('orders')`);
  catalog = new Catalog(pool);
  await catalog.load();
});

afterAll(async () => {
  await pool?.end();
  await database?.drop();
});

const parse = (table: Table, where: string): Filter => parseFilter(table, JSON.parse(where, keepDigits));

describe('JavaScript and Postgres', () => {
  const rowOf = fc.tuple(...names.map((name) => fc.option(kinds[name]!.rows, { freq: 6 })));

  async function replaceRows(rows: (string | null)[][]): Promise<string[]> {
    const list = names.map((name) => `"${name.replaceAll('"', '""')}"`).join(', ');
    // what is too long for its column is cut, as a cast cuts it
    const casts = names.map((name, index) => `$${index + 2}::${kinds[name]!.type}`).join(', ');
    await pool.query('truncate subject');
    for (const [index, row] of rows.entries())
      await pool.query({
        name: 'insert',
        text: `insert into subject (id, doc, ${list}) values ($1, '{"big": 1, "amount": 2.50}', ${casts})`,
        values: [index, ...row],
      });
    const { rows: images } = await pool.query<{ image: string }>(
      `select (${catalog.byName('subject')!.imageSql})::text as image from subject t order by id`,
    );
    return images.map(({ image }) => image);
  }

  it('judge every row alike', async () => {
    const table = catalog.byName('subject')!;
    let admitted = 0;
    let judged = 0;
    await fc.assert(
      fc.asyncProperty(
        fc.array(rowOf, { minLength: 40, maxLength: 40, size: 'max' }),
        fc.array(filters, { minLength: 60, maxLength: 60, size: 'max' }),
        async (rows, wheres) => {
          const images = await replaceRows(rows);
          const parsed = wheres.map((where) => parse(table, where));
          const values: unknown[] = [];
          const verdicts = parsed.map((filter) => {
            const sql = filterSql(filter, 't', values.length + 1);
            values.push(...sql.values);
            return `(${sql.text}) is true`;
          });
          const { rows: found } = await pool.query<{ verdicts: boolean[] }>(
            `select array[${verdicts.join(', ')}] as verdicts from subject t order by id`,
            values,
          );
          for (const [index, filter] of parsed.entries()) {
            const judge = compileFilter(filter);
            const equality = equalityOf(filter);
            for (const [number, image] of images.entries()) {
              const row = parseImage(image);
              const expected = found[number]!.verdicts[index];
              if (judge(row) !== expected) expect.fail(`${wheres[index]} of ${image}: Postgres says ${expected}`);
              judged += 1;
              if (!expected) continue;
              admitted += 1;
              if (equality) expect(equality.values).toContain(indexKey(row.read(equality.column)!));
            }
          }
        },
      ),
      { numRuns: 25, endOnFailure: true },
    );
    // else it proves nothing
    expect(admitted / judged).toBeGreaterThan(0.1);
    expect(admitted / judged).toBeLessThan(0.9);
  });

  it('judge each pair of values of a type alike', async () => {
    const table = catalog.byName('subject')!;
    for (const [position, name] of names.entries()) {
      const { ordered, rows, values } = kinds[name]!;
      const texts = fc.sample(rows, 40);
      const images = await replaceRows(
        texts.map((text) => names.map((_, index) => (index === position ? text : null))),
      );
      const operators = ['eq', 'ne', ...(ordered ? ['gt', 'gte', 'lt', 'lte'] : [])];
      const wheres = fc
        .sample(values, 40)
        .flatMap((value) => operators.map((operator) => `{${memberName(name)}:{"${operator}":${value}}}`));
      const sqlValues: unknown[] = [];
      const verdicts = wheres.map((where) => {
        const sql = filterSql(parse(table, where), 't', sqlValues.length + 1);
        sqlValues.push(...sql.values);
        return `(${sql.text}) is true`;
      });
      const { rows: found } = await pool.query<{ verdicts: boolean[] }>(
        `select array[${verdicts.join(', ')}] as verdicts from subject t order by id`,
        sqlValues,
      );
      const parsedRows = images.map(parseImage);
      for (const [index, where] of wheres.entries()) {
        const judge = compileFilter(parse(table, where));
        for (const [number, row] of parsedRows.entries())
          if (judge(row) !== found[number]!.verdicts[index])
            expect.fail(`${where} of ${images[number]}: Postgres says ${!judge(row)}`);
      }
    }
  });

  it('are not asked about other types', () => {
    const table = catalog.byName('refused')!;
    for (const index of refusedTypes.keys())
      for (const condition of ['null', '"a"', '1', 'true', '{"is":"not null"}', '{"in":[]}'])
        expect(() => parse(table, `{"c${index}":${condition}}`), `${refusedTypes[index]} ${condition}`).toThrow(
          FilterError,
        );
  });

  it('know enums and collations from the catalog', () => {
    const flags = (table: string, name: string) => {
      const column = catalog.byName(table)!.columns.find((candidate) => candidate.name === name)!;
      return [column.enum, column.nondeterministic];
    };
    expect(flags('subject', 'mood')).toEqual([true, false]);
    expect(flags('subject', 'localized')).toEqual([false, false]);
    expect(flags('subject', 'n')).toEqual([false, false]);
    expect(flags('refused', `c${refusedTypes.indexOf('text collate ignoring_case')}`)).toEqual([false, true]);
  });
});

describe('GET /api/<table>?where=', () => {
  let server: Server;
  let base: string;

  beforeAll(async () => {
    const app = createApp({
      config: { CORS_ORIGINS: ['*'], MAX_BODY_BYTES: 1024 },
      log: pino({ level: 'silent' }),
      catalog,
      pool,
      health: () => Promise.resolve({ status: 'ok', node: 'gw-1', connections: 0, database: 'connected' }),
      ready: () => ({ ready: true }),
      registry: new Registry(),
    });
    server = createServer(app);
    await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve));
    base = `http://127.0.0.1:${(server.address() as AddressInfo).port}`;
  });

  afterAll(() => new Promise((resolve) => server.close(resolve)));

  const get = async (query: string) => {
    const response = await fetch(`${base}/api/orders?${query}`);
    return { status: response.status, link: response.headers.get('link'), json: (await response.json()) as unknown };
  };
  const idsOf = (rows: unknown): number[] => (rows as { id: number }[]).map(({ id }) => id);

  it('answers the rows that the filter admits', async () => {
    const where = encodeURIComponent('{"or":[{"status":null},{"status":"done"}],"total":{"gt":60.0,"lte":"67.50"}}');
    const { status, json } = await get(`where=${where}`);
    expect([status, idsOf(json)]).toEqual([200, [41, 42, 44, 45]]);
    expect(idsOf((await get('where={}')).json)).toHaveLength(50);
  });

  it('pages through them', async () => {
    const ids: number[] = [];
    const where = encodeURIComponent('{"status":{"in":["open","é&%"]},"placed":{"gte":"2026-01-01T12:00:00+02:00"}}');
    for (let next: string | undefined = `limit=4&where=${where}`; next !== undefined; ) {
      const { status, link, json } = await get(next);
      expect(status).toBe(200);
      expect(idsOf(json).length).toBeLessThanOrEqual(4);
      ids.push(...idsOf(json));
      next = /\?(.*)>; rel="next"/.exec(link ?? '')?.[1];
    }
    expect(ids).toEqual([10, 13, 16, 19, 22, 25, 28, 31, 34, 37, 40, 43, 46, 49]);
  });

  it.each([
    ['{"total":{"gt":"x"}}', 'where.total.gt'],
    ['{"or":[{},{"nope":1}]}', 'where.or.1.nope'],
    ['{"id":9223372036854775808}', 'where.id'],
    ['[]', 'where'],
    ['{', 'where'],
    ['', 'where'],
    ['['.repeat(2_000), 'where'],
    ['{"not":'.repeat(500) + '{}' + '}'.repeat(500), `where${'.not'.repeat(8)}`],
  ])('refuses %.40s', async (where, path) => {
    const { status, json } = await get(`where=${encodeURIComponent(where)}`);
    expect(status).toBe(400);
    expect(json).toMatchObject({ code: 'INVALID', errors: [{ path }] });
  });

  it('refuses two', async () => {
    expect(await get('where={}&where={}')).toMatchObject({ status: 400, json: { errors: [{ path: 'where' }] } });
  });
});
