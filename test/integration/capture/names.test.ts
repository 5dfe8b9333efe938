// Whatever a table and its columns are called (aliases, variables and functions of generated SQL, members of JavaScript's objects, names
// that need quotes), each way to read a row gives the same bytes: REST, snapshots, changes, resumes.

import { describe, expect, test } from 'vitest';
import type { ServerFrame } from '#shared/wire.ts';
import { type Peer, Stage } from '../../support/stage/stage.ts';

const quoted = (name: string) => `"${name.replaceAll('"', '""')}"`;

/** aliases, variables, parameters, functions and types of generated SQL */
const ofSql =
  `i t r n o k a b c f l m p s v w x y image absent key new old row rows step steps part was became old_key new_key
  stays wrote found tg_op tg_relid plank_new plank_old bases p_column relation action id xid at seq last value name oid
  to_json format json text int4 record num_nonnulls set_byte count limit order select null default user current_user array`.split(
    /\s+/,
  );
const ofJavaScript = [
  '__proto__',
  'constructor',
  'toString',
  'hasOwnProperty',
  'length',
  'then',
  'toJSON',
  'prototype',
];
const quotes = [
  '$1',
  '}',
  '{',
  '"',
  "'",
  '\\',
  '*',
  't.*',
  '%s',
  '%1$I',
  '$body$',
  ',',
  ' ',
  '--',
  '/*',
  ';',
  'Mixed Case',
  'column:and',
  'and',
  'or',
  'not',
  'ünïcode',
  '行',
  '😀',
  'a\nb',
  'n'.repeat(63),
]; // prettier-ignore
const names = [...ofSql, ...quotes];

interface Case {
  table: string;
  columns: readonly string[];
  key: readonly string[];
  exclude?: readonly string[];
  /** its rows are written by SQL only */
  readsOnly?: true;
}

const cases: Case[] = [
  { table: 'things', columns: names, key: ['i'] },
  { table: 't', columns: names, key: ['t'] },
  { table: 'i', columns: [...names, ...ofJavaScript], key: ['__proto__'], readsOnly: true },
  {
    table: 'n',
    columns: [...ofJavaScript, ...names],
    key: ['n', '__proto__', 'constructor'],
    exclude: ['r'],
    readsOnly: true,
  },
  { table: 'image', columns: names, key: ['image', 'a', 'k'], exclude: ['r', 'hush'] },
  { table: 'plank_new', columns: names, key: ['$1', 'row'], exclude: ['hush'] },
  { table: 'to_json', columns: names, key: ['key'], exclude: ['to_json'] },
  { table: 'text', columns: names, key: ['n'.repeat(63)] },
  { table: '"; drop', columns: ['t', 'oid', 'image'], key: ['oid'] },
  { table: 'constructor', columns: ['constructor', '__proto__'], key: ['constructor'], readsOnly: true },
];

const stage = Stage.of(
  cases
    .map(({ table, columns, key, exclude }) => {
      const all = [...columns, 'hush'];
      const list = `'{${(exclude ?? []).map((name) => JSON.stringify(name)).join(',')}}'`;
      return `create table ${quoted(table)} (${all.map((name) => `${quoted(name)} integer`).join(', ')}, primary key (${key.map(quoted).join(', ')}));
        select plank.attach('${quoted(table)}'::regclass, exclude => ${list})`;
    })
    .join(';'),
);

/** An object with these members, even `__proto__`. */
function row(columns: readonly string[], value: (at: number) => number): Record<string, number> {
  return JSON.parse(`{${columns.map((name, at) => `${JSON.stringify(name)}:${value(at)}`).join(',')}}`);
}

describe.each(cases)('the table $table', ({ table, columns, key, exclude = [], readsOnly }) => {
  const sent = [...columns, 'hush'].filter((name) => !exclude.includes(name));
  const relation = quoted(table);
  const rest = sent.filter((name) => !key.includes(name));
  /** the column that filters name, and the column that changes */
  const [other, changing] = [rest[0]!, rest.at(-1)!];
  const keyOf = (base: number) => key.map((name) => encodeURIComponent(base + sent.indexOf(name))).join(',');
  const at = () => `${stage.embedded.url}/api/${encodeURIComponent(table)}`;

  async function call(method: string, path: string, body?: unknown): Promise<string> {
    const response = await fetch(at() + path, {
      method,
      headers: { 'content-type': 'application/json' },
      ...(body === undefined ? {} : { body: JSON.stringify(body) }),
    });
    const text = await response.text();
    if (!response.ok) throw new Error(`${method} ${path}: ${response.status} ${text}`);
    return text;
  }

  const insert = (base: number) =>
    readsOnly
      ? stage.sql(
          `insert into ${relation} (${sent.map(quoted).join(', ')}) values (${sent.map((_, n) => base + n).join(', ')})`,
        )
      : call(
          'POST',
          '',
          row(sent, (n) => base + n),
        );

  /** Sets columns of a row. */
  async function write(method: 'PATCH' | 'PUT', base: number, values: Record<string, number>): Promise<string> {
    if (!readsOnly) return call(method, `/${keyOf(base)}`, values);
    const sets = Object.entries(values).map(([name, value]) => `${quoted(name)} = ${value}`);
    await stage.sql(
      `update ${relation} set ${sets.join(', ')} where ${quoted(key[0]!)} = ${base + sent.indexOf(key[0]!)}`,
    );
    return call('GET', `/${keyOf(base)}`);
  }

  test('rows have the same bytes in REST, snapshots, changes and resumes', async () => {
    const where = `{${JSON.stringify(`column:${other}`)}:${1_000 + sent.indexOf(other)}}`;
    const some = [...new Set([...key, ...sent.filter((_, n) => n % 2 === 0)])];
    const asks = [undefined, sent, some].flatMap((wanted) =>
      [undefined, JSON.parse(where) as unknown].map((filter) => ({
        table,
        ...(wanted && { columns: wanted }),
        ...(filter !== undefined && { where: filter }),
      })),
    );
    await insert(1_000);
    await insert(2_000);
    const list = JSON.parse(await call('GET', '')) as Record<string, unknown>[];
    expect(list.map((found) => Object.keys(found))).toEqual(
      [sent, sent].map((each) => Object.keys(row(each, () => 0))),
    );
    const image = await call('GET', `/${keyOf(1_000)}`);
    expect(JSON.stringify(list[0])).toBe(image);
    expect(await call('GET', `?where=${encodeURIComponent(where)}`)).toBe(`[${image}]`);
    const first = await fetch(`${at()}?limit=1`);
    const next = first.headers.get('plank-next-cursor');
    expect(await first.text()).toBe(`[${image}]`);
    expect(await call('GET', `?limit=1&cursor=${next}`)).toBe(`[${await call('GET', `/${keyOf(2_000)}`)}]`);

    const peers = await Promise.all(
      asks.map(async (ask) => {
        const peer = await stage.peer();
        await stage.subscribe(peer, { ...ask, snapshot: true });
        const { rows } = await peer.reader.expect('rows');
        const { pos } = await peer.reader.expect('live');
        const shown = (from: Record<string, unknown>) => cut(from, ask.columns);
        expect(rows.map((found) => JSON.stringify(found)).sort()).toEqual(
          (ask.where ? [list[0]!] : list).map((found) => JSON.stringify(shown(found))).sort(),
        );
        return { ask, peer, pos, shown };
      }),
    );

    const patched = await write(
      'PATCH',
      1_000,
      row([changing], () => 7),
    );
    const replaced = await write(
      'PUT',
      2_000,
      row(sent, (n) => 2_000 + n),
    );
    await call('DELETE', `/${keyOf(2_000)}`);
    // several rows, and a key that changes
    await stage.sql(`insert into ${relation} (${sent.map(quoted).join(', ')})
      select ${sent.map((_, n) => `g * 1000 + ${n}`).join(', ')} from generate_series(3, 4) g`);
    const later = `${quoted(key[0]!)} > 2999`;
    await stage.sql(`update ${relation} set ${quoted(key[0]!)} = ${quoted(key[0]!)} + 5000 where ${later}`);
    await stage.sql(`delete from ${relation} where ${later}`);

    for (const { ask, peer, pos, shown } of peers) {
      const again = await stage.peer();
      await stage.subscribe(again, { ...ask, from: pos });
      const live = await changes(peer, ask.where ? 1 : 11);
      expect(await changes(again, ask.where ? 1 : 11)).toEqual(live);
      expect(data(live[0]!)).toBe(JSON.stringify(shown(JSON.parse(patched) as Record<string, unknown>)));
      if (!ask.where)
        expect(data(live[1]!)).toBe(JSON.stringify(shown(JSON.parse(replaced) as Record<string, unknown>)));
    }
    await call('DELETE', `/${keyOf(1_000)}`);
  });
});

function cut(from: Record<string, unknown>, columns: readonly string[] | undefined): Record<string, unknown> {
  const kept = Object.entries(from).filter(([name]) => !columns || columns.includes(name));
  return JSON.parse(`{${kept.map(([name, value]) => `${JSON.stringify(name)}:${JSON.stringify(value)}`).join(',')}}`);
}

async function changes({ reader }: Peer, count: number): Promise<ServerFrame[]> {
  const found: ServerFrame[] = [];
  while (found.length < count) {
    const frame = await reader.next();
    if (frame.type === 'change') found.push(frame);
    else if (frame.type !== 'pos' && frame.type !== 'live') throw new Error(`unexpected: ${JSON.stringify(frame)}`);
  }
  return found;
}

const data = (frame: ServerFrame) => JSON.stringify((frame as { data?: unknown }).data);
