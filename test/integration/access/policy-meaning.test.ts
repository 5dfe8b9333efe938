// Policies judged by JavaScript and by Postgres, row for row: with claims, sets of other tables, nulls, and the values that are hard
// to agree on. Three tables have the same columns, so that each can be compared with each.

import * as fc from 'fast-check';
import { afterAll, beforeAll, expect, test } from 'vitest';
import type { Claims } from '#gateway/access/claims.ts';
import { Catalog } from '#gateway/catalog/catalog.ts';
import {
  ClaimMissing,
  FilterError,
  parseImage,
  RowFilter,
  rowKey,
  type Source,
  Values,
} from '#gateway/filter/row-filter.ts';
import { keepDigits } from '#shared/exact-json.ts';
import { type Pool, quoted } from '#shared/postgres/postgres.ts';
import { testPool } from '../../support/servers/pool.ts';
import { createDatabase, type TestDatabase } from '../../support/servers/servers.ts';
import { filters, kinds, memberName, names } from '../../support/truth/filter-values.ts';

const tables = ['docs', 'members', 'teams'];

let database: TestDatabase;
let pool: Pool;
let catalog: Catalog;

beforeAll(async () => {
  database = await createDatabase();
  pool = testPool(database.url, 2);
  const columns = names.map((name) => `${quoted(name)} ${kinds[name]!.type}`).join(', ');
  await pool.query(`
    create type mood as enum ('wild', 'calm', 'Wild', 'a "quoted" one', 'é😀');
    ${tables.map((name) => `create table ${name} (id integer primary key, ${columns}); select plank.attach('${name}');`).join(' ')}`);
  catalog = new Catalog(pool);
  await catalog.load();
});

afterAll(async () => {
  await pool?.end();
  await database?.drop();
});

/** Columns that a set may be compared with: of one type in filters. */
const alike = [
  ['name', 'odd "name', 'localized'],
  ['n', 'and'],
  ['amount', 'price'],
  ['fixed', 'padded'],
  ['local', 'rounded'],
];
const likeOf = (name: string): string[] => alike.find((group) => group.includes(name)) ?? [name];
const someName = fc.constantFrom(...names);

const claimOf = (name: string): string => `{"$claim":"of.${names.indexOf(name)}"}`;
const listOf = (name: string): string => `{"$claim":"lists.${names.indexOf(name)}"}`;

const claimed = someName.chain((name) => {
  const { ordered, values } = kinds[name]!;
  const operators = ['eq', 'ne', ...(ordered ? ['gt', 'gte', 'lt', 'lte'] : [])];
  return fc
    .oneof(
      fc.constant(claimOf(name)),
      fc.constantFrom(...operators).map((operator) => `{"${operator}":${claimOf(name)}}`),
      fc.constant(`{"in":${listOf(name)}}`),
      values.map((value) => `{"in":[${value},${claimOf(name)}]}`),
    )
    .map((condition) => `{${memberName(name)}:${condition}}`);
});

/** `depth`: how many sets are nested. */
const member = (depth: number): fc.Arbitrary<string> =>
  fc
    .tuple(
      someName.chain((name) => fc.tuple(fc.constant(name), fc.constantFrom(...likeOf(name)))),
      fc.constantFrom(...tables),
      depth > 1
        ? fc.oneof(member(depth - 1), policy(depth - 1))
        : fc.oneof(fc.constant('{}'), fc.constant('{"id":-1}'), claimed, filters),
    )
    .map(
      ([[name, selected], from, where]) =>
        `{${memberName(name)}:{"in":{"$from":"${from}","select":${JSON.stringify(selected)},"where":${where}}}}`,
    );

const policy = (sets: number): fc.Arbitrary<string> => {
  const leaf = fc.oneof(claimed, member(1), ...(sets > 1 ? [member(sets)] : []), filters);
  const list = fc.array(leaf, { minLength: 1, maxLength: 3 }).map((parts) => `[${parts.join(',')}]`);
  return fc.oneof(
    leaf,
    leaf.map((part) => `{"not":${part}}`),
    list.map((parts) => `{"or":${parts}}`),
    list.map((parts) => `{"not":{"and":${parts}}}`),
    fc.tuple(leaf, leaf).map(([a, b]) => `{"and":[${a},{"not":${b}}]}`),
  );
};

/** A token's claims, as JSON.parse reads them: numbers beyond 2^53 were rounded. */
const someClaims: fc.Arbitrary<Claims> = fc
  .tuple(
    fc.tuple(...names.map((name) => kinds[name]!.values)),
    fc.tuple(...names.map((name) => fc.array(kinds[name]!.values, { maxLength: 4 }))),
  )
  .map(([of, lists]) =>
    JSON.parse(`{"of":[${of.join(',')}],"lists":[${lists.map((l) => `[${l.join(',')}]`).join(',')}]}`),
  );

const someRows = fc.array(fc.tuple(...names.map((name) => fc.option(kinds[name]!.rows, { freq: 6 }))), {
  minLength: 15,
  maxLength: 15,
  size: 'max',
});

type Images = Map<string, string[]>;

async function replaceRows(name: string, rows: (string | null)[][]): Promise<string[]> {
  const list = names.map(quoted).join(', ');
  const casts = names.map((column, index) => `$${index + 2}::${kinds[column]!.type}`).join(', ');
  await pool.query(`truncate ${name}`);
  for (const [index, row] of rows.entries())
    await pool.query({
      name: `insert ${name}`,
      text: `insert into ${name} (id, ${list}) values ($1, ${casts})`,
      values: [index, ...row],
    });
  const { imageSql } = catalog.byName(name)!;
  const { rows: found } = await pool.query<{ image: string }>(
    `select (${imageSql})::text as image from ${name} t order by id`,
  );
  return found.map(({ image }) => image);
}

/** Fills in the sets, from Postgres. JavaScript must find the same values in the same rows. */
async function loaded(filter: RowFilter, images: Images): Promise<RowFilter> {
  const sets = new Map<string, Values>();
  for (const source of filter.sources) sets.set(source.key, await valuesOf(source, images));
  return filter.withValues(({ key }) => sets.get(key)!);
}

async function valuesOf(source: Source, images: Images): Promise<Values> {
  const { column, table, query } = source;
  const values = new Values();
  const { rows } = await pool.query<{ value: string }>(query.text, query.values);
  for (const { value } of rows) values.add(value, column.codec);
  const where = await loaded(source.where, images);
  const admitted = images.get(table.name)!.map(parseImage).filter(where.admits);
  const keys = new Set(admitted.map((row) => rowKey(row, column)).filter((key) => key !== null));
  expect(new Set(values.indexKeys()), `${column.name} of ${table.name} where ${where.text}`).toEqual(keys);
  return values;
}

test('columns of any two tables can be compared, whatever their collations and the search_path are', async () => {
  await pool.query(`
    create schema hostile;
    create function hostile.never(text, text) returns boolean language sql as 'select false';
    create operator hostile.= (leftarg = text, rightarg = text, procedure = hostile.never);
    create table hostile.teams (id integer);
    create table rooms (id integer primary key, owner text collate "C", plain text, short char(3) collate "C");
    create table people (id integer primary key, owner text collate "en-x-icu", plain text, team integer,
                          short char(5) collate "en-x-icu");
    create table t (id integer primary key, plain text collate "POSIX");
    select plank.attach('rooms'), plank.attach('people'), plank.attach('t');
    insert into rooms values (1, 'ada', 'bob', 'ada'), (2, 'bob', 'ada', null), (3, null, null, 'b');
    insert into people values (1, 'ada', 'ada', 1, 'ada'), (2, null, null, 7, 'b');
    insert into t values (1, 'ada')`);
  await catalog.load();
  const terms = { claims: { sub: 'ada' }, tableNamed: (name: string) => catalog.byName(name) };
  const rooms = catalog.byName('rooms')!;
  const client = await pool.connect();
  try {
    await client.query('set search_path = hostile, pg_catalog');
    const texts = { people: ['owner', 'plain'], t: ['plain'], rooms: ['owner'] };
    for (const column of ['owner', 'plain', 'short'])
      for (const [from, selects] of Object.entries(column === 'short' ? { people: ['short'] } : texts))
        for (const select of selects) {
          // the column team is none of rooms, and id and plain are columns of both tables
          const where = from === 'people' ? { id: 1, team: 1, plain: { $claim: 'sub' } } : { id: 1 };
          const filter = RowFilter.policy(rooms, { [column]: { in: { $from: from, select, where } } }, 'read', terms);
          const { text, values } = filter.sql(2);
          const { rows } = await client.query(
            `select t.id from public.rooms t where $1::integer is not null and ${text} order by 1`,
            [0, ...values],
          );
          expect(rows, `${column} in ${select} of ${from}`).toEqual([{ id: column === 'plain' ? 2 : 1 }]);
        }
  } finally {
    client.release(true);
  }
});

test('JavaScript and Postgres judge every row alike under every policy', { timeout: 240_000 }, async () => {
  const docs = catalog.byName('docs')!;
  const tally = { policies: 0, denied: 0, tooLarge: 0, sets: 0, judged: 0, admitted: 0 };
  const of = (text: string, claims: Claims): RowFilter | null => {
    tally.policies += 1;
    const terms = { claims, tableNamed: (name: string) => catalog.byName(name) };
    try {
      return RowFilter.policy(docs, JSON.parse(text, keepDigits), 'read', terms);
    } catch (error) {
      if (error instanceof ClaimMissing) tally.denied += 1;
      else if (error instanceof FilterError && error.problem.startsWith('is too much')) tally.tooLarge += 1;
      else throw error;
      return null;
    }
  };
  await fc.assert(
    fc.asyncProperty(
      fc.tuple(someRows, someRows, someRows),
      fc.array(fc.tuple(policy(2), someClaims, fc.option(filters)), { minLength: 40, maxLength: 40, size: 'max' }),
      async (rows, policies) => {
        const images: Images = new Map();
        for (const [index, name] of tables.entries()) images.set(name, await replaceRows(name, rows[index]!));
        const values: unknown[] = [];
        const conditions: string[] = [];
        const judges: { filter: RowFilter; text: string }[] = [];
        for (const [text, claims, where] of policies) {
          const alone = of(text, claims);
          if (alone === null) continue;
          const client = where === null ? null : RowFilter.parse(docs, JSON.parse(where, keepDigits));
          const filter = alone.and(client);
          const sql = filter.sql(values.length + 1);
          values.push(...sql.values);
          conditions.push(`(${sql.text}) is true`);
          tally.sets += filter.sources.length;
          judges.push({
            filter: await loaded(filter, images),
            text: `${text} with ${JSON.stringify(claims)} and ${where}`,
          });
        }
        const { rows: found } = await pool.query<{ verdicts: boolean[] }>(
          `select array[${conditions.join(', ')}]::boolean[] as verdicts from docs t order by id`,
          values,
        );
        for (const [number, image] of images.get('docs')!.entries()) {
          const row = parseImage(image);
          for (const [index, { filter, text }] of judges.entries()) {
            const expected = found[number]!.verdicts[index];
            if (filter.admits(row) !== expected) expect.fail(`${text} of ${image}: Postgres says ${expected}`);
            tally.judged += 1;
            if (!expected) continue;
            tally.admitted += 1;
            const { equality } = filter;
            if (equality) expect(equality.values).toContain(rowKey(row, equality.column));
          }
        }
      },
    ),
    { numRuns: 30, endOnFailure: true },
  );
  // else it proves nothing
  expect(tally.denied + tally.tooLarge).toBeLessThan(tally.policies / 2);
  expect(tally.sets).toBeGreaterThan(tally.policies / 4);
  expect(tally.admitted / tally.judged).toBeGreaterThan(0.1);
  expect(tally.admitted / tally.judged).toBeLessThan(0.9);
});
