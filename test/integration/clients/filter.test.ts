// Filters judged by JavaScript and by Postgres, row for row, over the values that are hard to agree on.

import * as fc from 'fast-check';
import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import { Catalog, type Table } from '#gateway/catalog/catalog.ts';
import { parseImage } from '#gateway/filter/image.ts';
import { compileFilter, equalityOf } from '#gateway/filter/judge.ts';
import { type Filter, FilterError, parseFilter } from '#gateway/filter/parse.ts';
import { filterSql } from '#gateway/filter/sql.ts';
import { indexKey } from '#gateway/filter/types.ts';
import { keepDigits } from '#shared/exact-json.ts';
import type { Pool } from '#shared/postgres/postgres.ts';
import { testPool } from '../../support/servers/pool.ts';
import { createDatabase, type TestDatabase } from '../../support/servers/servers.ts';
import { filters, kinds, memberName, names, refusedTypes } from '../../support/truth/filter-values.ts';

let database: TestDatabase;
let pool: Pool;
let catalog: Catalog;

beforeAll(async () => {
  database = await createDatabase();
  pool = testPool(database.url, 2);
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
    select plank.attach('subject'), plank.attach('refused')`);
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

  test('JavaScript and Postgres judge every row alike', async () => {
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
            const sql = filterSql(filter, values.length + 1);
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

  test('JavaScript and Postgres judge each pair of values of a type alike', async () => {
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
        const sql = filterSql(parse(table, where), sqlValues.length + 1);
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

  test('a filter by a column of another type is refused', () => {
    const table = catalog.byName('refused')!;
    for (const index of refusedTypes.keys())
      for (const condition of ['null', '"a"', '1', 'true', '{"is":"not null"}', '{"in":[]}'])
        expect(() => parse(table, `{"c${index}":${condition}}`), `${refusedTypes[index]} ${condition}`).toThrow(
          FilterError,
        );
  });

  test('the catalog knows enums and non-deterministic collations', () => {
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
