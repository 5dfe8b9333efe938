// Copied names: Plank follows any DDL of an attached table and of the types and tables that it is made of. Where Plank cannot (the
// role that migrated is no superuser), plank.check() finds the difference, and its statements lead to the same result.

import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import { Catalog } from '#gateway/catalog/catalog.ts';
import type { Pool } from '#shared/postgres/postgres.ts';
import { admin } from '../../support/servers/admin.ts';
import { testPool } from '../../support/servers/pool.ts';
import { createDatabase, type TestDatabase } from '../../support/servers/servers.ts';
import { Capture } from '../../support/truth/capture.ts';

/** DDL of the schema S with the attached table T (and U and parts, if named). `hush`: the excluded column's name afterwards. */
const cases: [what: string, ddl: string, more?: { name?: string; hush?: string; isFine?: true }][] = [
  ['a column is added', 'alter table S.T add column w integer default 7'],
  ['a column is dropped', 'alter table S.T drop column v'],
  ['a column is renamed', 'alter table S.T rename column v to w'],
  ['an excluded column is renamed', 'alter table S.T rename column secret to hidden', { hush: 'hidden', isFine: true }],
  [
    'an excluded column is dropped and comes back',
    'alter table S.T drop column secret; alter table S.T add column secret text',
    { isFine: true },
  ],
  ['a read-only column is renamed', 'alter table S.T rename column made to created'],
  [
    'two columns swap their names',
    'alter table S.T rename v to x; alter table S.T rename secret to v; alter table S.T rename x to secret',
    { hush: 'v' },
  ],
  ['a type changes', 'alter table S.T alter column v type integer using 1'],
  ['a column must not be null', 'alter table S.T alter column v set not null'],
  ['a default is dropped', 'alter table S.T alter column k drop default'],
  ['the table is renamed', 'alter table S.T rename to renamed', { name: 'S.renamed' }],
  ['the table goes to another schema', 'alter table S.T set schema public', { name: 'T' }],
  ['the schema is renamed', 'alter schema S rename to S_2', { name: 'S_2.T' }],
  [
    'two schemas swap their names',
    'create schema S_b; alter schema S rename to S_a; alter schema S_b rename to S; alter schema S_a rename to S_b',
    { name: 'S_b.T' },
  ],
  [
    'two tables swap their names',
    'begin; alter table S.T rename to x; alter table S.u rename to T; alter table S.x rename to u; commit',
    { name: 'S.u' },
  ],
  ['a type is renamed', 'alter type S.mood rename to feeling'],
  ['a type goes to another schema', 'create schema S_types; alter type S.mood set schema S_types'],
  ['the type of the key is renamed', 'alter domain S.code rename to number'],
  ['the type of a row is renamed', 'alter table S.part rename to piece'],
  ['the key is renamed', 'alter table S.T rename column id to nr'],
  ['the key is another', 'alter table S.T drop constraint "T_pkey", add primary key (k)'],
  ['the key has another order', 'alter table S.T drop constraint "T_pkey", add primary key (k, id)'],
  [
    'rows are deleted with others',
    'alter table S.T add foreign key (up) references S.T (id) on delete cascade; alter table S.T add foreign key (side) references S.T (id) on delete set null',
  ],
  ['a partition comes', 'create table S.more partition of S.parts for values from (10) to (20)'],
  ['a partition goes', 'alter table S.parts detach partition S.some'],
  [
    'a partition of another order comes',
    'create table S.other (v text, id integer not null); alter table S.parts attach partition S.other for values from (20) to (30)',
  ],
  ['a trigger is renamed', 'alter trigger plank_insert on S.T rename to mine'],
  ['a trigger is dropped', 'drop trigger plank_update on S.T'],
  [
    'a trigger is replaced',
    'create function S.nothing() returns trigger language plpgsql as $$ begin return null; end $$; create or replace trigger plank_delete after delete on S.T for each statement execute function S.nothing()',
  ],
];

describe.each([
  ['followed', true],
  ['not followed, without event triggers', false],
])('DDL %s', (_, isFollowed) => {
  let database: TestDatabase;
  let capture: Capture;
  let pool: Pool;

  beforeAll(async () => {
    database = await createDatabase();
    capture = await Capture.start(database.url);
    pool = testPool(database.url, 1);
    if (!isFollowed)
      await admin(
        database.url,
        'drop event trigger plank_ddl; drop event trigger plank_drop; drop event trigger plank_rewrite',
      );
  });
  afterAll(async () => {
    await pool?.end();
    await capture?.stop();
    await database?.drop();
  });

  const problems = () =>
    capture.ask('select name, problem from plank.check() order by 1, 2') as Promise<
      { name: string; problem: string }[]
    >;

  let number = 0;
  test.each(cases)(
    'the capture is right, or plank.check() repairs it, where %s',
    async (_what, ddl, { name = 'S.T', hush = 'secret', isFine } = {}) => {
      number += 1;
      const named = (sql: string) => sql.replaceAll(/\bS(?=\b|_)/g, `s${number}`).replaceAll(/\bT\b/g, `t${number}`);
      await capture.writer.query(
        named(`create schema S; create type S.mood as enum ('low'); create domain S.code as integer; create table S.part (a integer);
        create table S.T (id S.code constraint "T_pkey" primary key, k text unique not null default 'a', v text, secret text, m S.mood, p S.part,
          ps S.part[], up S.code, side S.code, made date default '2024-01-01');
        create table S.u (id integer primary key);
        create table S.parts (id integer primary key, v text) partition by range (id);
        create table S.some partition of S.parts for values from (0) to (10);
        select plank.attach('S.T', exclude => '{secret}', read_only => '{made}')
        ${/S\.u\b/.test(ddl) ? ", plank.attach('S.u')" : ''} ${/S\.parts/.test(ddl) ? ", plank.attach('S.parts')" : ''}`),
      );
      await capture.writer.query(named(ddl));
      const found = await problems();
      if (isFine || (isFollowed && !ddl.includes('trigger'))) expect(found).toEqual([]);
      else expect(found).not.toEqual([]);
      for (const { problem } of found) await capture.writer.query(problem.split('; run: ')[1]!);
      if (found.length > 0) expect(await problems()).toEqual([]);
      await capture.changes();

      const catalog = new Catalog(pool);
      await catalog.load();
      const table = catalog.byName(named(name))!;
      expect([table.schema, table.table]).toEqual(named(name.includes('.') ? name : `public.${name}`).split('.'));
      expect(table.columns.find((column) => /made|created/.test(column.name))?.writable).toBe(false);
      // changes are captured as rows are read (Capture checks this), once, and without the excluded column
      const full = `${table.schema}.${table.table}`;
      const row = { id: 1, nr: 1, k: 'a', v: '5', m: 'low', p: { a: 1 }, ps: [{ a: 2 }], [hush]: 'hush' };
      const changes = await capture.run(
        `insert into ${full} select * from json_populate_record(null::${full}, '${JSON.stringify(row)}')`,
      );
      changes.push(...(await capture.run(`truncate ${full} cascade`)));
      expect(changes.map(({ action }) => action).join('')).toBe('IT');
      expect(changes[0]!.new).not.toContain('hush');
      expect(Object.keys(JSON.parse(changes[0]!.new!))).toEqual(table.columns.map((column) => column.name));

      await capture.writer.query(
        named(`drop schema if exists S, S_2, S_b, S_types cascade; drop table if exists public.T;
      delete from plank.attached a where not exists (select from pg_class where oid = a.relation)`),
      );
    },
  );
});
