// Statements inside statements: changes by a user's AFTER triggers are captured before the statement that fired them. The log must
// have them in the order in which they happened. test/support/truth/capture.ts checks that for each run.

import * as fc from 'fast-check';
import { afterAll, beforeAll, beforeEach, describe, expect, test } from 'vitest';
import { createDatabase, type TestDatabase } from '../../support/servers/servers.ts';
import { Capture } from '../../support/truth/capture.ts';

// The setting test.rules names what the triggers do, so that a test needs no DDL. Remainders choose different rules for different rows.
const schema = `
  create table a (id integer primary key, v integer not null, n integer not null default 0);
  create table b (id integer primary key, a integer not null, v integer not null, n integer not null default 0);
  create sequence changes;
  create function has(rule text) returns boolean language sql stable as $$
    select rule = any (string_to_array(current_setting('test.rules', true), ' ')) $$;
  create function counted() returns trigger language plpgsql as $$
    begin if has('counted') then new.n := nextval('changes'); end if; return new; end $$;
  create trigger counted before insert or update on a for each row execute function counted();
  create trigger counted before insert or update on b for each row execute function counted();
  create function row_a() returns trigger language plpgsql as $$
  begin
    if pg_trigger_depth() > 3 then return null; end if;
    if tg_op in ('INSERT', 'UPDATE') then
      if has('again') and new.v % 5 = 1 then update a set v = v + 1 where id = new.id; end if;
      if has('twice') and new.v % 5 = 2 then update a set v = v + 1 where id = new.id; update a set v = v + 2 where id = new.id; end if;
      if has('undo') and tg_op = 'UPDATE' and new.v % 5 = 3 then update a set v = old.v where id = new.id; end if;
      if has('gone') and new.v % 7 = 2 then delete from a where id = new.id; end if;
      if has('anew') and new.v % 7 = 3 then
        delete from a where id = new.id;
        insert into a values (new.id, new.v + 10) on conflict do nothing;
      end if;
      if has('move') and new.v % 7 = 4 and new.id < 100 then update a set id = id + 100 where id = new.id; end if;
      if has('other') then insert into b values (new.id, new.id, new.v) on conflict (id) do update set v = excluded.v; end if;
      if has('neighbour') and new.v % 3 = 0 then update a set v = v + 1 where id = new.id + 1; end if;
    else
      if has('back') and old.v % 3 <> 0 then insert into a values (old.id, old.v + 1) on conflict do nothing; end if;
      if has('same') and old.v % 3 = 0 then insert into a values (old.id, old.v) on conflict do nothing; end if;
      if has('other') then delete from b where a = old.id; end if;
    end if;
    return null;
  end $$;
  create function row_b() returns trigger language plpgsql as $$
  begin
    if pg_trigger_depth() > 3 then return null; end if;
    if has('return') then update a set v = v + 1 where id = new.a; end if;
    return null;
  end $$;
  create function statement_a() returns trigger language plpgsql as $$
  begin
    if pg_trigger_depth() > 2 then return null; end if;
    if has(tg_argv[0]) then update a set v = v + 1 where v % 4 = 1; delete from a where v % 9 = 4; end if;
    return null;
  end $$;
  create trigger row_a after insert or update or delete on a for each row execute function row_a();
  create trigger row_b after insert or update on b for each row execute function row_b();
  create trigger aaa after insert or update or delete on a for each statement execute function statement_a('before');
  create trigger zzz after insert or update or delete on a for each statement execute function statement_a('after');
  select plank.attach('a'), plank.attach('b')`;

const rules = [
  'again',
  'twice',
  'undo',
  'gone',
  'anew',
  'move',
  'other',
  'neighbour',
  'back',
  'same',
  'return',
  'before',
  'after',
];

let database: TestDatabase;
let capture: Capture;

beforeAll(async () => {
  database = await createDatabase();
  capture = await Capture.start(database.url);
  await capture.run(schema);
});

beforeEach(async () => {
  await capture.run("set test.rules = ''; truncate a, b");
});

afterAll(async () => {
  await capture?.stop();
  await database?.drop();
});

/** The changes of `a`, in short: "U1 10>11" */
async function story(rules: string, sql: string): Promise<string[]> {
  const changes = await capture.run(`set test.rules = '${rules}'; ${sql}`);
  const value = (image: string | null) => (image === null ? '' : (JSON.parse(image) as { v: number }).v);
  return changes
    .filter((change) => change.table === 'a')
    .map((change) => `${change.action}${change.key} ${value(change.old)}>${value(change.new)}`);
}

describe('triggers that change rows again', () => {
  beforeEach(() => capture.run('insert into a values (1, 10), (2, 20)'));

  test.each([
    ['updates the row', 'again', ['U1 10>11', 'U1 11>12']],
    ['updates the row back', 'undo', ['U1 10>13', 'U1 13>10'], 13],
    ['updates the row twice', 'twice', ['U1 10>12', 'U1 12>13', 'U1 13>15'], 12],
    ['deletes the row', 'gone', ['U1 10>16', 'D1 16>'], 16],
    ['deletes the row and inserts it', 'anew', ['U1 10>17', 'D1 17>', 'I1 >27'], 17],
    ['moves the row', 'move', ['U1 10>18', 'I101 >18', 'D1 18>'], 18],
    [
      'is a statement trigger that runs before the capture',
      'before',
      ['U1 10>13', 'U1 13>14', 'U1 14>15'].slice(0, 2),
      13,
    ],
    ['is a statement trigger that runs after the capture', 'after', ['U1 10>17', 'U1 17>18'], 17],
    ['updates it through another table', 'other return', ['U1 10>19', 'U1 19>20'], 19],
  ])('changes are in order when a trigger %s', async (_, rules, expected, v = 11) => {
    expect(await story(rules, `update a set v = ${v} where id = 1`)).toEqual(expected);
  });

  test('changes are in order when a trigger inserts a deleted row again', async () => {
    expect(await story('back', 'delete from a where id = 1')).toEqual(['D1 10>', 'I1 >11']);
    expect(await story('same', 'update a set v = 12 where id = 1; delete from a where id = 1')).toEqual([
      'U1 11>12',
      'D1 12>',
      'I1 >12',
    ]);
  });

  test('changes are in order when a trigger updates or deletes an inserted row', async () => {
    expect(await story('again', 'insert into a values (3, 31)')).toEqual(['I3 >31', 'U3 31>32']);
    expect(await story('gone', 'insert into a values (4, 30)')).toEqual(['I4 >30', 'D4 30>']);
  });

  test('changes are in order in statements of many rows with different triggers', async () => {
    await capture.run('insert into a select g, g * 3 from generate_series(10, 90) g');
    for (const rules of [
      'again gone',
      'twice undo',
      'anew move',
      'neighbour again',
      'before after again',
      'other return again',
    ]) {
      await capture.run(`set test.rules = '${rules}'; update a set v = v + 1`);
    }
    await capture.run("set test.rules = 'back same other return'; delete from a where id % 2 = 0");
  });

  test('changes are in order in transactions with savepoints', async () => {
    await capture.run(`set test.rules = 'again other return'; begin; update a set v = 11; savepoint s; update a set v = 21;
      rollback to s; update a set v = 31 where id = 1; savepoint t; delete from a where id = 2; release t; insert into a values (3, 6);
      savepoint u; update a set v = 41; set local test.rules = 'gone'; update a set v = 16; rollback to u; update a set v = v + 5; commit`);
  });

  test('changes are in order with a trigger that is deferred to the commit', async () => {
    await capture.run(`create table later (id integer primary key, v integer);
      create function later() returns trigger language plpgsql as $$
        begin if new.v < 5 then update later set v = v + 1 where id = new.id; end if; return null; end $$;
      create constraint trigger later after insert or update on later deferrable initially deferred for each row execute function later();
      select plank.attach('later')`);
    await capture.run('begin; insert into later values (1, 1), (2, 4); update later set v = 3 where id = 1; commit');
  });
});

describe('time', () => {
  /** Seconds for one statement over `rows` rows */
  async function seconds(rules: string, rows: number): Promise<number> {
    await capture.run(`truncate a, b; insert into a select g, 0 from generate_series(1, ${rows}) g`);
    await capture.run('analyze a, b, plank.outbox');
    const start = performance.now();
    await capture.writer.query(`set test.rules = '${rules}'; update a set v = 1`);
    const took = performance.now() - start;
    expect((await capture.changes()).length).toBeGreaterThanOrEqual(rows * 2);
    return took / 1_000;
  }

  // Ten times the rows take ten times the time, or a hundred times if the time is quadratic.
  test.each([
    ['again', 20_000],
    ['other return', 6_000],
  ])('the time of a capture grows with the rows: %s, %i rows', async (rules, rows) => {
    const few = await seconds(rules, rows / 10);
    expect((await seconds(rules, rows)) / few).toBeLessThan(35);
  });
});

// PLANK_TEST_RUNS: how many lists of transactions. 1,000 take three minutes.
const runs = Number(process.env.PLANK_TEST_RUNS ?? 60);

describe('any transaction', () => {
  const id = fc.integer({ min: 1, max: 8 });
  const v = fc.integer({ min: 0, max: 40 });
  const ids = fc.tuple(id, id).map(([x, y]) => `${Math.min(x, y)} and ${Math.max(x, y)}`);
  const values = fc
    .uniqueArray(fc.tuple(id, v), { minLength: 1, maxLength: 5, selector: ([key]) => key })
    .map((rows) => rows.map(([key, value]) => `(${key}, ${value})`).join(', '));
  const statement = fc.oneof(
    { weight: 3, arbitrary: values.map((rows) => `insert into a values ${rows} on conflict do nothing`) },
    {
      weight: 3,
      arbitrary: values.map((rows) => `insert into a values ${rows} on conflict (id) do update set v = excluded.v`),
    },
    { weight: 4, arbitrary: fc.tuple(v, ids).map(([n, where]) => `update a set v = ${n} where id between ${where}`) },
    {
      weight: 4,
      arbitrary: fc.tuple(v, ids).map(([n, where]) => `update a set v = v + ${n} where id between ${where}`),
    },
    { weight: 2, arbitrary: ids.map((where) => `update a set v = v where id between ${where}`) },
    { weight: 2, arbitrary: ids.map((where) => `delete from a where id between ${where}`) },
    { weight: 2, arbitrary: fc.tuple(id, id).map(([from, to]) => `update a set id = ${to} where id = ${from}`) },
    { weight: 1, arbitrary: fc.constant('update a set id = id + 1') },
    { weight: 2, arbitrary: fc.tuple(v, id).map(([n, key]) => `update b set v = ${n} where id = ${key}`) },
    { weight: 1, arbitrary: fc.constant('truncate a') },
    {
      weight: 2,
      arbitrary: values.map(
        (rows) => `merge into a using (values ${rows}) n(id, v) on n.id = a.id
        when matched and n.v % 3 = 0 then delete when matched then update set v = n.v when not matched then insert values (n.id, n.v)`,
      ),
    },
    {
      weight: 1,
      arbitrary: values.map(
        (rows) =>
          `with gone as (delete from a where v % 2 = 0 returning id) insert into a select id, v from (values ${rows}) n(id, v) on conflict do nothing`,
      ),
    },
  );
  const step = fc.oneof({ weight: 9, arbitrary: statement }, { weight: 1, arbitrary: fc.constantFrom('mark', 'back') });
  const transaction = fc.record({
    // serializable transactions are captured in another way
    isolation: fc.constantFrom('read committed', 'serializable'),
    rules: fc.subarray([...rules, 'counted']),
    steps: fc.array(step, { minLength: 1, maxLength: 8 }),
    commits: fc.integer({ min: 0, max: 9 }).map((n) => n > 0),
  });

  /** Runs a transaction step by step. A step that fails is rolled back, as an application would. */
  async function perform({
    isolation,
    rules,
    steps,
    commits,
  }: {
    isolation: string;
    rules: string[];
    steps: string[];
    commits: boolean;
  }): Promise<void> {
    const { writer } = capture;
    await writer.query(`set test.rules = '${rules.join(' ')}'; begin isolation level ${isolation}; savepoint mark`);
    for (const step of steps) {
      if (step === 'mark') await writer.query('savepoint mark');
      else if (step === 'back') await writer.query('rollback to mark');
      else {
        await writer.query('savepoint step');
        await writer.query(step).catch(() => writer.query('rollback to step'));
      }
    }
    await writer.query(commits ? 'commit' : 'rollback');
  }

  test(
    "the changes of any transaction fit together and lead to the tables' rows",
    async () => {
      await fc.assert(
        fc
          .asyncProperty(fc.array(transaction, { minLength: 1, maxLength: 3 }), async (transactions) => {
            for (const each of transactions) {
              await perform(each);
              await capture.changes();
            }
          })
          .beforeEach(async () => {
            await capture.writer.query('rollback');
            await capture.stop();
            capture = await Capture.start(database.url);
            await capture.run(
              "set test.rules = ''; truncate a, b; insert into a select g, g * 3 from generate_series(1, 6) g",
            );
          }),
        { numRuns: runs },
      );
    },
    60_000 + runs * 1_000,
  );
});

// Postgres treats them as the same key, and clients as two.
test.each([
  ['citext', 'id citext primary key', 'upper(new.id::text)', ['a', 'b']],
  ['numeric', 'id numeric primary key', "(new.id::text || '0')::numeric", ['1.0', '2.0']],
  ['numeric, deferrable', 'id numeric primary key deferrable', "(new.id::text || '0')::numeric", ['1.0', '2.0']],
  ['part of a key', "id numeric, k text default 'x', primary key (k, id)", 'trim_scale(new.id)', ['1.0', '2.0']],
])(
  'changes of equal keys that are written differently are in order: %s',
  async (_, columns, otherwise, [first, second]) => {
    await capture.run(`create extension if not exists citext; create table equals (${columns}, v integer);
    create function rewrite() returns trigger language plpgsql as $$ begin
      if new.v % 5 < 2 then update equals set v = v + 1, id = ${otherwise} where id = new.id; end if;
      return null; end $$;
    create trigger rewrite after insert or update on equals for each row execute function rewrite();
    select plank.attach('equals')`);
    const write = `insert into equals (id, v) values ('${first}', 0), ('${second}', 3); update equals set id = '${first}', v = 5 where v = 2;
    update equals set v = 6; delete from equals where v = 7`;
    await capture.run(write);
    await capture.run(`begin isolation level serializable; ${write}; commit`);
    await capture.run('drop table equals; drop function rewrite');
  },
);
