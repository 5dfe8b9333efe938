// Owns a table with every type of column that a filter may meet, and short functions that parse and judge filters over it.

import type { Column, Table } from '#gateway/catalog/catalog.ts';
import { parseImage } from '#gateway/filter/image.ts';
import { compileFilter } from '#gateway/filter/judge.ts';
import { type Filter, FilterError, parseFilter } from '#gateway/filter/parse.ts';
import { keepDigits } from '#shared/exact-json.ts';

const types: Record<string, string> = {
  ok: 'boolean',
  small: 'smallint',
  n: 'integer',
  m: 'integer',
  k: 'integer',
  big: 'bigint',
  real: 'real',
  ratio: 'double precision',
  price: 'numeric(8,2)',
  amount: 'numeric',
  name: 'text',
  code: 'character varying(20)',
  fixed: 'character(5)',
  id: 'uuid',
  day: 'date',
  local: 'timestamp(3) without time zone',
  at: 'timestamp with time zone',
  meta: 'jsonb',
  tags: 'integer[]',
  raw: 'bytea',
  email: 'citext',
  hour: 'time without time zone',
  span: 'interval',
  ip: 'inet',
  positive: 'positive',
  letter: '"char"',
  impostor: 'public.text',
  quoted: '"boolean"',
  and: 'integer',
  'column:x': 'integer',
  'odd "name': 'integer',
};
const columns: Column[] = Object.entries(types).map(([name, type]) => ({
  name,
  type,
  base: type,
  nullable: true,
  optional: true,
  writable: true,
}));
columns.push({ ...columns[0]!, name: 'mood', type: 'mood', enum: true });
columns.push({ ...columns[0]!, name: 'folded', type: 'text', nondeterministic: true });
export const table: Table = {
  id: 1,
  name: 'things',
  schema: 'public',
  table: 'things',
  keyColumns: ['id'],
  columns,
  imageSql: 'to_json(t)',
  version: '',
  largeSql: null,
  rowBytes: 8_388_608,
  policies: [],
  policiesVersion: null,
};

/** `where` as a value, or as JSON text. Throws FilterError. */
export const parse = (where: unknown): Filter =>
  parseFilter(table, typeof where === 'string' ? (JSON.parse(where, keepDigits) as unknown) : where);
export const keyOf = (where: unknown): string => parse(where).key;
export const admits = (where: unknown, image: unknown): boolean =>
  compileFilter(parse(where))(parseImage(typeof image === 'string' ? image : JSON.stringify(image)));

export function refusal(where: unknown): FilterError {
  try {
    parse(where);
  } catch (error) {
    if (error instanceof FilterError) return error;
    throw error;
  }
  throw new Error('it was accepted');
}

export function nested(depth: number, kind: 'not' | 'and'): object {
  let filter: object = { n: 1 };
  for (let level = 1; level < depth; level++) filter = kind === 'not' ? { not: filter } : { and: [filter] };
  return filter;
}
