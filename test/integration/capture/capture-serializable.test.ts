// I10 for serializable transactions: capture reads nothing that other writers write, so that no writer fails because of it. A read of
// the outbox, by an index or a scan, would lock what every writer writes to.

import { afterEach, beforeAll, expect, test } from 'vitest';
import { captured } from '../../support/stage/captured.ts';
import { session } from '../../support/truth/capture.ts';

const schema = `
  create table rows (id integer primary key, v integer not null, note text);
  create table parents (id integer primary key);
  create table children (id integer primary key, parent integer references parents on update cascade on delete cascade,
    other integer references parents on update cascade on delete set null);
  create table parts (id integer primary key, v integer) partition by range (id);
  create table part_1 partition of parts for values from (0) to (100);
  create table part_2 partition of parts for values from (100) to (200);
  create table told (id integer primary key, v integer not null default 0);
  create table quiet (id integer primary key);
  create table nests (id integer primary key, v integer not null);
  create function nest() returns trigger language plpgsql as $$
    begin
      if new.v < 3 then update nests set v = v + 1 where id = new.id; end if;
      insert into told values (new.id, new.v) on conflict (id) do update set v = excluded.v;
      return null;
    end $$;
  create trigger nest after insert or update on nests for each row execute function nest();
  -- a table in between that is not attached, so that depths are skipped
  create function hush() returns trigger language plpgsql as $$
    begin update told set v = v + 1 where id = new.id; return null; end $$;
  create trigger hush after insert on quiet for each row execute function hush();
  create function shout() returns trigger language plpgsql as $$
    begin insert into quiet values (new.id) on conflict do nothing; return null; end $$;
  create trigger shout after update on told for each row when (new.v = 100) execute function shout();
  select plank.attach('rows'), plank.attach('parents'), plank.attach('children'), plank.attach('parts'), plank.attach('told'), plank.attach('nests')`;

const rows = `insert into rows select g, g from generate_series(1, 5) g; insert into told select g from generate_series(1, 5) g;
  insert into parents select g from generate_series(1, 4) g; insert into children values (1, 1, 2), (2, 2, 1), (3, 3, 3);
  insert into parts select g from generate_series(10, 90, 20) g`;

const kinds: [kind: string, sql: string][] = [
  ['insert', 'insert into rows values (10, 1)'],
  ['insert of many rows', 'insert into rows select g, g from generate_series(10, 60) g'],
  ['update', 'update rows set v = 0 where id = 1'],
  ['update of many rows', 'update rows set v = v + 1'],
  ['change of a key', 'update rows set id = 100 where id = 1'],
  ['change of many keys', 'update rows set id = id + 100'],
  ['change of some keys', 'update rows set id = case when id > 3 then id + 100 else id end, v = 0'],
  ['delete', 'delete from rows where id = 2'],
  ['delete of all rows', 'delete from rows'],
  ['truncate', 'truncate rows'],
  ['truncate of partitions', 'truncate parts; truncate part_1; insert into parts values (1, 1); truncate part_1'],
  ['insert on conflict', 'insert into rows values (1, 7), (11, 7) on conflict (id) do update set v = excluded.v'],
  [
    'merge',
    `merge into rows using (values (1), (2), (20)) n(id) on n.id = rows.id
     when matched and n.id = 1 then delete when matched then update set v = 9 when not matched then insert values (n.id, 9)`,
  ],
  ['cascades', 'delete from parents where id = 1'],
  ['cascades of an update', 'update parents set id = id + 10'],
  [
    'cascades that change a row twice',
    'begin; update parents set id = 20 where id = 3; delete from parents where id = 20',
  ],
  ['a row that leaves its partition', 'update parts set id = id + 100 where id < 60'],
  ['nested statements', 'insert into nests values (1, 0), (2, 1)'],
  [
    'nested statements of several statements',
    'begin; insert into nests values (1, 0); update nests set v = 1; update told set v = 5; update nests set v = 0 where id = 1',
  ],
  [
    'depths that are skipped',
    'begin; update told set v = 100 where id < 4; update told set v = 100 where id = 4; update told set v = 7',
  ],
  [
    'savepoints',
    `begin; insert into nests values (1, 0); savepoint s; update nests set v = 0; rollback to s; update nests set v = 1;
     savepoint t; update nests set v = 0; release t; delete from nests`,
  ],
  ['truncate among others', 'begin; insert into nests values (1, 0); truncate nests; insert into nests values (1, 1)'],
];

const capture = captured(schema);

beforeAll(async () => {
  await capture.writer.query('set default_transaction_isolation = serializable; set array_nulls = off');
});

afterEach(() => capture.writer.query('rollback'));

const locked = `select c.relname, l.page, l.tuple from pg_locks l join pg_class c on c.oid = l.relation
  where l.mode = 'SIReadLock' and l.pid = pg_backend_pid() and c.relnamespace = 'plank'::regnamespace`;

test.each(kinds)('a serializable transaction locks nothing of Plank and is captured: %s', async (_kind, sql) => {
  const { writer } = capture;
  await capture.run(`truncate rows, parents, children, parts, told, quiet, nests; ${rows}`);
  await writer.query(sql.startsWith('begin') ? sql : `begin; ${sql}`);
  const { rows: locks } = await writer.query(locked);
  await writer.query('commit');
  expect(await capture.changes()).not.toHaveLength(0);
  expect(locks).toEqual([]);
});

test('a serializable transaction with more changes than are remembered is captured', async () => {
  await capture.run('truncate nests, told; insert into nests select g, 0 from generate_series(1, 150) g');
  await capture.run('begin; update nests set v = 0 where id < 10; update nests set v = 1; commit');
});

test('serializable writers of different tables never fail', async () => {
  const writers = Array.from({ length: 6 }, (_, i) => i);
  const tables = writers.map(
    (i) => `create table own_${i} (id integer primary key, v integer not null); insert into own_${i} values (1, 0);
    create table other_${i} (id integer primary key, v integer not null); insert into other_${i} values (1, 0);
    select plank.attach('own_${i}'), plank.attach('other_${i}');`,
  );
  await capture.run(`${tables.join('')}
    create function also() returns trigger language plpgsql as $$ begin update other_0 set v = v + 1 where id = 1; return null; end $$;
    create trigger also after update on own_0 for each row execute function also()`);
  const failures = await Promise.all(
    writers.map(async (i) => {
      const client = await session(capture.url);
      let failed = 0;
      try {
        await client.query('set default_transaction_isolation = serializable');
        for (let n = 0; n < 100; n++) {
          const write = `begin; update own_${i} set v = v + 1 where id = 1; update own_${i} set v = v + 1 where id = 1; commit`;
          await client.query(write).catch(async () => {
            failed++;
            await client.query('rollback');
          });
        }
      } finally {
        await client.end();
      }
      return failed;
    }),
  );
  expect(failures).toEqual(writers.map(() => 0));
  await capture.changes();
});
