// Rows with any key, in tables with any name: the Location of a POST leads to the row, directly and through nginx.

import { once } from 'node:events';
import { get, type IncomingMessage } from 'node:http';
import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import { type LocalNginx, startNginx } from '#deploy/local/nginx.ts';
import { Stage } from '../../support/stage/stage.ts';

const texts = [
  '',
  '.',
  '..',
  '...',
  'changes',
  'Changes',
  'CHANGES',
  '=',
  '=changes',
  '==',
  '%',
  '%2F',
  '%00',
  '%63hanges',
  '/',
  '//',
  'a/b',
  'a/',
  '/a',
  '../x',
  './',
  '\\',
  ';',
  'a;b',
  '?',
  'a?b=c',
  '#',
  '+',
  'a b',
  ' ',
  '\n',
  '~',
  ',',
  ',,',
  'a,b',
  '"',
  '"changes"',
  '{"a":1}',
  '[]',
  'null',
  'NULL',
  'undefined',
  'true',
  '007',
  '1e3',
  '-0',
  'caf\u00e9',
  'cafe\u0301',
  '😀',
  '\u202e',
  '\ufeff',
  '\u007f',
  "it's",
  '<script>',
  '&amp;',
  ':',
  '@',
  '*',
  'a/changes',
  'changes/',
  'x'.repeat(2000),
  'é'.repeat(1000),
  'constructor',
  '__proto__',
  'health',
  'metrics',
  'index.html',
];

/** type → SQL of keys */
const typed: Record<string, string[]> = {
  int4: ['-1', '0'],
  int8: ['9223372036854775807'],
  float8: [`'NaN'`, `'-Infinity'`, '1e20', '-1.5e-7'],
  numeric: [`'NaN'`, '1.50', '1e40'],
  bool: ['false'],
  uuid: [`'A0EEBC99-9C0B-4EF8-BB6D-6BB9BD380A11'`],
  bytea: [`'\\x00ff2f'`, `''`],
  date: [`'5874897-12-31'`, `'0044-03-15 BC'`, `'infinity'`],
  timestamptz: [`'2026-01-31 12:00:00.5+02'`, `'294276-12-31 00:00+00'`, `'0044-03-15 00:00+00 BC'`, `'-infinity'`],
  timestamp: [`'2026-01-31 12:00'`],
  time: [`'24:00'`],
  timetz: [`'12:00+05:30'`],
  interval: [`'1 mon -2 days 00:00:00.5'`],
  money: [`'-1.50'`],
  inet: [`'10.0.0.1/8'`, `'::1'`],
  macaddr: [`'08:00:2b:01:02:03'`],
  'bit(3)': [`B'101'`],
  'char(3)': [`'a'`],
  jsonb: [`'{"a": ["/", 1.0]}'`, `'"changes"'`, `'null'`],
  'text[]': [`'{a,"b/c,",null}'`, `'[2:3]={x,y}'`],
  int4range: [`'[1,5)'`, `'empty'`],
  tstzrange: [`'["2026-01-01 00:00+00",)'`],
  tsvector: [`'a:1'`],
  oid: ['4294967295'],
  name: [`'changes'`],
  mood: [`'changes'`, `'a/b'`],
  positive: ['7'],
  pair: [`row(1, 'a,/"')`],
  'ext.citext': [`'MiXed'`],
  word: [`'MiXed'`],
};
const typeNames = Object.keys(typed);

const tables = [
  'health',
  'metrics',
  'changes',
  'a/b',
  '..',
  '.',
  'a.b',
  '=',
  'a%2Fb',
  'sp ace',
  'quo"te',
  '__proto__',
  'Items',
  'a,b',
  'é',
];
const quoted = (name: string) => `"${name.replaceAll('"', '""')}"`;

const stage = Stage.of(`
  create schema ext;
  create extension citext schema ext;
  create domain word as ext.citext;
  create type mood as enum ('changes', 'a/b');
  create domain positive as integer check (value > 0);
  create type pair as (a integer, b text);
  create table keyed (k text primary key, v integer);
  create table pairs (a text, b text, v integer, primary key (a, b));
  create table mixed (a ext.citext, b integer, v integer, primary key (a, b));
  ${typeNames.map((type, i) => `create table t${i} (k ${type} primary key, v integer); select plank.attach('t${i}');`).join('\n')}
  ${tables.map((name) => `create table ${quoted(name)} (k integer primary key); select plank.attach('${quoted(name)}');`).join('\n')}
  select plank.attach('keyed'), plank.attach('pairs'), plank.attach('mixed');
`);

let nginx: LocalNginx;
beforeAll(async () => {
  nginx = await startNginx({ upstreams: [new URL(stage.embedded.url).host] });
});
afterAll(() => nginx.stop());
const bases = () => [stage.embedded.url, nginx.url];

async function call(
  url: string | URL,
  method = 'GET',
  body?: unknown,
): Promise<{ status: number; text: string; location: string }> {
  const headers = { 'content-type': 'application/json' };
  const response = await fetch(url, {
    method,
    ...(body === undefined ? {} : { headers, body: typeof body === 'string' ? body : JSON.stringify(body) }),
  });
  return { status: response.status, text: await response.text(), location: response.headers.get('location') ?? '' };
}

/** Follows a Location as a client does: reads, replaces, patches, deletes. */
async function goRound(base: string, location: string, row: unknown): Promise<unknown[]> {
  const url = new URL(location, base);
  const steps: unknown[] = [];
  for (const [method, body] of [
    ['GET', undefined],
    ['PUT', row],
    ['PATCH', { v: 2 }],
    ['DELETE', undefined],
    ['GET', undefined],
  ] as const)
    steps.push((await call(url, method, body)).status);
  return steps;
}
/** Runs five at a time: more could be refused as too many. */
async function inTurn<T>(items: readonly T[], work: (item: T) => Promise<unknown>): Promise<unknown[]> {
  const results: unknown[] = [];
  for (let at = 0; at < items.length; at += 5) results.push(...(await Promise.all(items.slice(at, at + 5).map(work))));
  return results;
}

const round = [200, 200, 200, 204, 404];

describe.each([0, 1])('%#: directly and through nginx', (which) => {
  test('a row is reached by any text as its key', async () => {
    const base = bases()[which]!;
    const went = await inTurn(texts, async (k) => {
      const made = await call(`${base}/api/keyed`, 'POST', { k, v: 1 });
      return [k, made.status, await goRound(base, made.location, made.text)];
    });
    expect(went).toEqual(texts.map((k) => [k, 201, round]));
  });

  test('a row is reached by any pair of texts as its key', async () => {
    const base = bases()[which]!;
    const pairs = texts
      .flatMap(
        (a, index) =>
          [
            [a, texts.at(index - 1)!],
            ['', a],
          ] as const,
      )
      .filter(([a, b], index) => a.length + b.length < 2500 && index > 1);
    const went = await inTurn(pairs, async ([a, b]) => {
      const made = await call(`${base}/api/pairs`, 'POST', { a, b, v: 1 });
      return [a, b, made.status, await goRound(base, made.location, made.text)];
    });
    expect(went).toEqual(pairs.map(([a, b]) => [a, b, 201, round]));
  });

  test.each(typeNames)('a row is reached by a key of type %s', async (type) => {
    const base = bases()[which]!;
    const table = `t${typeNames.indexOf(type)}`;
    await stage.sql(`truncate ${table}`);
    for (const value of typed[type]!) await stage.sql(`insert into ${table} values (${value}, 1)`);
    // page by page, with the key in the cursor
    const rows: string[] = [];
    for (let next: string | null = `${base}/api/${table}?limit=1`; next !== null; ) {
      const page: Response = await fetch(next);
      expect(page.status).toBe(200);
      rows.push((await page.text()).slice(1, -1));
      const link = /<(.*)>/.exec(page.headers.get('link') ?? '')?.[1];
      next = link === undefined ? null : new URL(link, base).href;
    }
    expect(rows.length).toBe(typed[type]!.length);
    for (const row of rows) {
      await stage.sql(`truncate ${table}`);
      const made = await call(`${base}/api/${table}`, 'POST', row);
      expect([row, made.status, await goRound(base, made.location, made.text)]).toEqual([row, 201, round]);
    }
  });

  test.each(tables)('a table called %s is reached', async (name) => {
    const base = bases()[which]!;
    // a name of dots needs "=" before it
    const segment = /^\.\.?$/.test(name) ? `=${name}` : encodeURIComponent(name);
    const made = await call(`${base}/api/${segment}`, 'POST', { k: which });
    expect([name, made.status, (await call(new URL(made.location, base))).status]).toEqual([name, 201, 200]);
    const stream = await fetch(`${base}/api/${segment}/changes`);
    expect([name, stream.status, stream.headers.get('content-type')]).toEqual([name, 200, 'text/event-stream']);
    await stream.body!.cancel();
  });

  test('/changes is the event stream, and =changes the row with that key', async () => {
    const base = bases()[which]!;
    await stage.sql(`insert into keyed values ('changes', 1), ('', 2) on conflict do nothing`);
    for (const segment of ['changes', 'Changes', '%63hanges', 'changes/']) {
      const asking = get(`${base}/api/keyed/${segment}`);
      const [answer] = (await once(asking, 'response')) as [IncomingMessage];
      expect([segment, answer.headers['content-type']]).toEqual([segment, 'text/event-stream']);
      asking.destroy();
    }
    expect((await call(`${base}/api/keyed/changes`, 'DELETE')).status).toBe(405);
    expect((await call(`${base}/api/keyed/=changes`)).text).toBe('{"k":"changes","v":1}');
    expect((await call(`${base}/api/keyed/=`)).text).toBe('{"k":"","v":2}');
    expect((await call(`${base}/api/keyed/=?x=1`)).status).toBe(400);
  });

  test('keys compare by the operators of their type, whatever search_path is', async () => {
    const base = bases()[which]!;
    await stage.sql(
      `truncate mixed; insert into mixed select w, n, 1 from unnest('{b,A,C}'::text[]) w, generate_series(1, 2) n`,
    );
    expect((await call(`${base}/api/mixed/a,1`)).text).toBe('{"a":"A","b":1,"v":1}');
    expect((await call(`${base}/api/mixed`, 'POST', { a: 'B', b: 1 })).status).toBe(409);
    const seen: string[] = [];
    for (let next = `/api/mixed?limit=1`; next !== ''; ) {
      const page = await fetch(new URL(next, base));
      for (const { a, b } of (await page.json()) as { a: string; b: number }[]) seen.push(`${a}${b}`);
      next = /<(.*)>/.exec(page.headers.get('link') ?? '')?.[1] ?? '';
    }
    expect(seen).toEqual(['A1', 'A2', 'b1', 'b2', 'C1', 'C2']);
    expect((await call(`${base}/api/mixed/c,2`, 'DELETE')).status).toBe(204);
  });

  test('a key that is too long for an address gets no Location', async () => {
    const base = bases()[which]!;
    const made = await call(`${base}/api/keyed`, 'POST', { k: 'x'.repeat(20_000), v: 1 });
    expect([made.status, made.location]).toEqual([201, '']);
    await stage.sql('delete from keyed');
  });
});
