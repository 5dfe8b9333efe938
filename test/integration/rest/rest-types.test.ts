// PUT and PATCH take a row back as GET gave it, and the row stays unchanged: for every type that a column can have.

import { expect, test } from 'vitest';
import { RestApp } from '../../support/stage/rest-app.ts';

/** type → SQL of values; the users' types are created below */
const cases: Record<string, string[]> = {
  bool: ['true', 'false'],
  '"char"': [`'x'`, `''`],
  name: [`'a name'`],
  int2: ['-32768'],
  int4: ['2147483647'],
  int8: ['-9223372036854775808', '9007199254740993'],
  oid: ['4294967295'],
  float4: [`'NaN'`, `'-0'`, '1e-45', '3.4028235e38', '0.1', `'-Infinity'`],
  float8: [`'NaN'`, `'-0'`, '5e-324', '1.7976931348623157e308', '1e20', '0.1', `'Infinity'`],
  numeric: [`'NaN'`, `'-Infinity'`, '1.500', '1e400', '0.000', '-12345678901234567890.12345678901234567890'],
  'numeric(8,2)': ['12.50'],
  money: [`'-1234567.89'`],
  text: [`''`, `'null'`, `e'a\\u2028"\\\\\\n'`, `'😀'`],
  'varchar(5)': [`'ab '`],
  'char(3)': [`'a'`],
  bpchar: [`'a  '`],
  bytea: [`'\\x00ff'`, `''`],
  bit: [`B'1'`],
  'bit(3)': [`B'101'`],
  varbit: [`B'0110'`],
  uuid: [`'A0EEBC99-9C0B-4EF8-BB6D-6BB9BD380A11'`],
  date: [`'0044-03-15 BC'`, `'5874897-12-31'`, `'4713-01-01 BC'`, `'infinity'`, `'-infinity'`, `'0005-02-28 BC'`],
  time: [`'24:00:00'`, `'12:00:00.000001'`],
  timetz: [`'12:00:00+05:30'`, `'12:00:00-15:59:59'`],
  timestamp: [`'294276-12-31 23:59:59.999999'`, `'4713-11-24 00:00:00 BC'`, `'infinity'`],
  timestamptz: [`'294276-12-31 23:59:59.999999+00'`, `'0044-03-15 12:00:00+00 BC'`, `'-infinity'`],
  interval: [`'-1 mon 2 days -03:04:05.6'`, `'178000000 years'`, `'0'`],
  json: [`'{"a":1,"a":2,"b":1.0}'`, `'null'`, `' [1e400, 12345678901234567890] '`, `'"text"'`, `'7'`],
  jsonb: [`'{"a": {"__proto__": [1.0, null]}}'`, `'null'`, `'"text"'`, 'to_jsonb(1e300)'],
  jsonpath: [`'$.a[*] ? (@ > 1)'`],
  xml: [`'<a b="c">d &amp; e</a>'`, `'text'`],
  inet: [`'10.0.0.1/8'`, `'::1'`],
  cidr: [`'10.0.0.0/8'`],
  macaddr: [`'08:00:2b:01:02:03'`],
  macaddr8: [`'08:00:2b:01:02:03:04:05'`],
  point: [`'(1.5,-0)'`],
  line: [`'{1,-1,0}'`],
  lseg: [`'[(0,0),(1,1)]'`],
  box: [`'(1,1),(0,0)'`],
  path: [`'[(0,0),(1,1)]'`, `'((0,0),(1,1))'`],
  polygon: [`'((0,0),(1,1),(1,0))'`],
  circle: [`'<(0,0),1>'`],
  tsvector: [`$$'a b':1A,2 'c'$$`],
  tsquery: [`$$'a' & !'b' <-> 'c':*$$`],
  int4range: [`'[1,10)'`, `'empty'`, `'(,)'`],
  int8range: [`'[1,10)'`],
  numrange: [`'(1.50,2.00]'`],
  daterange: [`'[2026-01-01,infinity)'`],
  tsrange: [`'["2026-01-01 00:00","2026-01-02 00:00")'`],
  tstzrange: [`'["2026-01-01 00:00+00",)'`],
  int4multirange: [`'{[1,3),[5,7)}'`],
  int8multirange: [`'{}'`],
  nummultirange: [`'{[1.0,2.50)}'`],
  datemultirange: [`'{[2026-01-01,2026-02-01)}'`],
  tsmultirange: [`'{["2026-01-01 00:00","2026-01-02 00:00")}'`],
  tstzmultirange: [`'{["2026-01-01 00:00+00",)}'`],
  pg_lsn: [`'16/B374D848'`],
  xid: ['733::text::xid'],
  xid8: [`'18446744073709551615'`],
  cid: [`'1'`],
  tid: [`'(0,1)'`],
  pg_snapshot: [`'10:20:10,14'`],
  txid_snapshot: [`'10:20:10,14'`],
  int2vector: [`'1 2 -3'`, `''`],
  oidvector: [`'1 4294967295'`],
  refcursor: [`'c'`],
  regclass: [`'pg_class'`],
  regtype: [`'int4'`],
  regproc: [`'now'`],
  regprocedure: [`'now()'`],
  regoper: [`'||/'`],
  regoperator: [`'+(int4,int4)'`],
  regrole: [`'postgres'`],
  regnamespace: [`'public'`],
  regconfig: [`'english'`],
  regdictionary: [`'simple'`],
  regcollation: [`'"C"'`],
  aclitem: [`'=r/postgres'`],
  gtsvector: [],
  // arrays: bounds, dimensions and nulls
  'int4[]': [`'[0:2]={1,null,3}'`, `'{{1,2},{3,4}}'`, `'[2:3][-1:0]={{1,2},{3,null}}'`, `'{}'`],
  'text[]': [`'{"a\\"b\\\\c,{}",null,"NULL",""}'`],
  'varchar(3)[]': [`'{abc}'`],
  'numeric[]': [`'{1.500,NaN}'`],
  'float8[]': [`'{-0,1e-7,Infinity}'`],
  'bool[]': [`'{t,f,null}'`],
  'timestamptz[]': [`'{2026-01-01 00:00+00,infinity}'`],
  'bytea[]': [`array['\\x00'::bytea]`],
  'json[]': [`array['{"a": 1}', 'null', '[1,2]']::json[]`],
  'jsonb[]': [`array['{"a": 1}', '[1,2]', null]::jsonb[]`],
  'box[]': [`'{(1,1),(0,0);(2,2),(1,1)}'`],
  'int4range[]': [`'{"[1,3)",empty}'`],
  'int2vector[]': [`array['1 2']::int2vector[]`],
  // of users
  mood: [`'calm'`],
  'mood[]': [`'{calm,"quite wild"}'`],
  positive: ['7'],
  'positive[]': [`'{1,2}'`],
  document: [`'{"a": 1.0}'`, `'null'`, `'"text"'`, `'[1]'`],
  'document[]': [`array['{"a": 1}', '"x"']::document[]`],
  tags: [`'{a,null,"b c"}'`, `'[5:6]={a,b}'`],
  pair: [
    `row(1, 'x', '{1,2}', '2026-01-01 00:00+00')`,
    'row(null, null, null, null)',
    `row(-1, 'a "b", (c)', '{}', 'infinity')`,
  ],
  'pair[]': [`array[row(1, 'x', '{1}', null), null]::pair[]`],
  nested: [`row(row(1, 'x', null, null), '{"a": [1]}')`],
  'elsewhere.pair': [`row('(1,2)', 2.50)`],
  posted: [`row('(1,2)', 2.50)`],
  floatrange: [`'[1.5,2.5)'`],
  '"Odd ""type"': [`'a'`],
  'elsewhere.citext': [`'MiXed'`],
  hstore: [`'a=>1, "b c"=>null'`, `''`],
  'hstore[]': [`array['a=>1'::hstore]`],
};

const types = Object.keys(cases);
const rowCount = Math.max(...Object.values(cases).map((values) => values.length));
const valuesOf = (index: number) =>
  types.map((type) => (cases[type]!.length === 0 ? 'null' : cases[type]![index % cases[type]!.length]!));

const app = RestApp.of(`
  create type mood as enum ('calm', 'quite wild');
  create domain positive as integer check (value > 0);
  create domain document as json;
  create domain tags as text[];
  create type pair as (a integer, b text, c integer[], at timestamptz);
  create type nested as (p pair, d jsonb);
  create schema elsewhere;
  create type elsewhere.pair as (at point, n numeric);
  create domain posted as elsewhere.pair;
  create type floatrange as range (subtype = float8);
  create type "Odd ""type" as enum ('a');
  create extension hstore;
  create extension citext schema elsewhere;
  create table every (k integer primary key, ${types.map((type, index) => `c${index} ${type}`).join(', ')}, none text,
    twice integer generated always as (k * 2) stored, told timestamptz not null default now());
  insert into every (k, ${types.map((_, index) => `c${index}`).join(', ')}) values
    ${Array.from({ length: rowCount }, (_, index) => `(${index}, ${valuesOf(index).join(', ')})`).join(', ')};
  select plank.attach('every', read_only => '{told}')`);
const { call } = app;

const columnOf = (type: string) => `c${types.indexOf(type)}`;
const stored = async (k: number) =>
  (await app.pool.query('select every::text as row from every where k = $1', [k])).rows[0] as { row: string };

test('there is a case for every type of Postgres that can be written', async () => {
  const { rows } = await app.pool.query<{ type: string }>(
    `select format_type(oid, -1) as type from pg_type where typnamespace = 'pg_catalog'::regnamespace and typtype in ('b', 'r', 'm')
       and typcategory not in ('A', 'Z') and typrelid = 0
     except select format_type(atttypid, -1) from pg_attribute where attrelid = 'every'::regclass order by 1`,
  );
  expect(rows.map(({ type }) => type)).toEqual([]);
});

test.each(Array.from({ length: rowCount }, (_, index) => index))(
  'row %i is taken back as GET gave it, whole and by column',
  async (k) => {
    const address = `/api/every/${k}`;
    const got = await call('GET', address);
    expect(got.status).toBe(200);
    const wrong: unknown[] = [];
    let before = await stored(k);
    const sendBack = async (what: string, body: string, method: string) => {
      const answer = await call(method, address, body);
      const now = await stored(k);
      if (answer.status !== 200 || now.row !== before.row) wrong.push([what, body, answer.problem.detail]);
      before = now;
    };
    await sendBack('PUT', got.text, 'PUT');
    // the values exactly as they were sent
    const { rows } = await app.pool.query<{ json: (string | null)[] }>(
      `select array[${types.map((_, index) => `to_json(c${index})::text`).join(', ')}] as json from every where k = $1`,
      [k],
    );
    for (const [index, type] of types.entries()) {
      // values of earlier rows are repeated
      if (k > 0 && k >= cases[type]!.length) continue;
      await sendBack(`PATCH ${type}`, `{"c${index}":${rows[0]!.json[index] ?? 'null'}}`, 'PATCH');
    }
    for (const name of ['k', 'none', 'twice', 'told'])
      await sendBack(
        `PATCH ${name}`,
        `{"${name}":${JSON.stringify((JSON.parse(got.text) as Record<string, unknown>)[name])}}`,
        'PATCH',
      );
    expect(wrong).toEqual([]);
  },
);

test('a row survives a client that parses and prints it, except for numbers that JavaScript rounds', async () => {
  const exact = new Set(
    [
      'numeric',
      'int8',
      'json',
      'jsonb',
      'json[]',
      'document',
      'float4',
      'float8',
      'float8[]',
      'numeric[]',
      'numeric(8,2)',
    ].map(columnOf),
  );
  for (let k = 0; k < rowCount; k++) {
    const before = await stored(k);
    const row = JSON.parse((await call('GET', `/api/every/${k}`)).text) as Record<string, unknown>;
    const kept = Object.fromEntries(Object.entries(row).filter(([name]) => !exact.has(name)));
    expect([k, (await call('PATCH', `/api/every/${k}`, kept)).problem.detail]).toEqual([k, undefined]);
    expect(await stored(k)).toEqual(before);
  }
});
