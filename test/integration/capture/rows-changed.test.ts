// Rows that change, come or go without INSERT, UPDATE or DELETE: subscriptions get a resync in the order of changes, live and on a
// resume, and then have the rows of SELECT (I4). DDL that changes no row causes no resync.

import { expect, test } from 'vitest';
import type { Gateway } from '#gateway/gateway.ts';
import type { Row, ServerFrame } from '#shared/wire.ts';
import { type FrameReader, overEvents, overWebSocket } from '../../support/stage/frames.ts';
import { Stage } from '../../support/stage/stage.ts';
import { until } from '../../support/wait.ts';

interface Case {
  /** creates T with rows; T_x are other names of the case */
  made: string;
  ddl: string;
  reason: 'rows' | 'shape' | null;
}

const partitioned = `create table T (id int primary key, v text) partition by range (id);
  create table T_1 partition of T for values from (0) to (10); create table T_2 partition of T for values from (10) to (20);
  insert into T values (1, 'a'), (11, 'b')`;
const deeper = `create table T (id int primary key, v text) partition by range (id);
  create table T_1 partition of T for values from (0) to (10) partition by range (id);
  create table T_11 partition of T_1 for values from (0) to (5); create table T_2 partition of T for values from (10) to (20);
  insert into T values (1, 'a'), (11, 'b')`;
const plain = `create table T (id int primary key, v text, n int); insert into T values (1, 'a', 1), (2, 'b', 2)`;
const typed = (type: string, value: string, column = 'T_t') =>
  `create type T_t as ${type}; create table T (id int primary key, v text, x ${column}); insert into T values (1, 'a', ${value})`;
const pair = '(a int, b text)';

const cases: Record<string, Case> = {
  'a partition is truncated': { made: partitioned, ddl: 'truncate T_1', reason: 'rows' },
  'two partitions are truncated': { made: partitioned, ddl: 'truncate T_1, T_2', reason: 'rows' },
  'a partition of a partition is truncated': { made: deeper, ddl: 'truncate T_11', reason: 'rows' },
  'a partition that has partitions is truncated': { made: deeper, ddl: 'truncate T_1', reason: 'rows' },
  'the parent is truncated': { made: partitioned, ddl: 'truncate T', reason: null },
  'a table that refers to a truncated one is truncated with it': {
    made: `create table T_p (id int primary key); insert into T_p values (1);
      create table T (id int primary key references T_p, v text); insert into T values (1, 'a')`,
    ddl: 'truncate T_p cascade',
    reason: null,
  },
  'a partition is dropped': { made: partitioned, ddl: 'drop table T_1', reason: 'rows' },
  'a partition that has partitions is dropped': { made: deeper, ddl: 'drop table T_1', reason: 'rows' },
  'a partition of a partition is dropped': { made: deeper, ddl: 'drop table T_11', reason: 'rows' },
  'a partition is detached': { made: partitioned, ddl: 'alter table T detach partition T_1', reason: 'rows' },
  'a partition is detached concurrently': {
    made: partitioned,
    ddl: 'alter table T detach partition T_1 concurrently',
    reason: 'rows',
  },
  'a filled partition is attached': {
    made: `${partitioned}; create table T_3 (id int primary key, v text); insert into T_3 values (21, 'c')`,
    ddl: 'alter table T attach partition T_3 for values from (20) to (30)',
    reason: 'rows',
  },
  'a partition is created': {
    made: partitioned,
    ddl: 'create table T_3 partition of T for values from (20) to (30)',
    reason: null,
  },
  'a label is renamed': {
    made: typed(`enum ('x', 'y')`, `'x'`),
    ddl: `alter type T_t rename value 'x' to 'z'`,
    reason: 'rows',
  },
  'a label in an array is renamed': {
    made: typed(`enum ('x', 'y')`, `'{x}'`, 'T_t[]'),
    ddl: `alter type T_t rename value 'x' to 'z'`,
    reason: 'rows',
  },
  'a label in a domain over an array is renamed': {
    made: typed(`enum ('x', 'y'); create domain T_d as T_t[]`, `'{x}'`, 'T_d'),
    ddl: `alter type T_t rename value 'x' to 'z'`,
    reason: 'rows',
  },
  'a label in a composite is renamed': {
    made: typed(`enum ('x', 'y'); create type T_c as (a T_t)`, `row('x')`, 'T_c'),
    ddl: `alter type T_t rename value 'x' to 'z'`,
    reason: 'rows',
  },
  'a label in a range is renamed': {
    made: typed(`enum ('x', 'y'); create type T_r as range (subtype = T_t)`, `'[x,y)'`, 'T_r'),
    ddl: `alter type T_t rename value 'x' to 'z'`,
    reason: 'rows',
  },
  'a label is added': { made: typed(`enum ('x', 'y')`, `'x'`), ddl: `alter type T_t add value 'z'`, reason: null },
  'an attribute is renamed': {
    made: typed(pair, `row(1, 'x')`),
    ddl: 'alter type T_t rename attribute a to c',
    reason: 'rows',
  },
  'an attribute is added': {
    made: typed(pair, `row(1, 'x')`),
    ddl: 'alter type T_t add attribute c int',
    reason: 'rows',
  },
  'an attribute is dropped': {
    made: typed(pair, `row(1, 'x')`, 'T_t[]').replace("row(1, 'x')", `'{"(1,x)"}'`),
    ddl: 'alter type T_t drop attribute b',
    reason: 'rows',
  },
  'a column of the table whose row type is used is renamed': {
    made: `create table T_t ${pair}; create table T (id int primary key, v text, x T_t); insert into T values (1, 'a', row(1, 'x'))`,
    ddl: 'alter table T_t rename column a to c',
    reason: 'rows',
  },
  'a stored expression is replaced': {
    made: `create table T (id int primary key, v text, n int, m int generated always as (n + 1) stored); insert into T values (1, 'a', 1)`,
    ddl: 'alter table T alter m set expression as (n + 2)',
    reason: 'rows',
  },
  'a virtual expression is replaced': {
    made: `create table T (id int primary key, v text, n int, m int generated always as (n + 1)); insert into T values (1, 'a', 1)`,
    ddl: 'alter table T alter m set expression as (n + 2)',
    reason: 'rows',
  },
  'a column is computed again': { made: plain, ddl: 'alter table T alter n type int using n * 2', reason: 'rows' },
  'a column of partitions is computed again': {
    made: partitioned,
    ddl: `alter table T alter v type text using v || '!'`,
    reason: 'rows',
  },
  'a column is computed again with another type': {
    made: plain,
    ddl: 'alter table T alter n type text using n * 2',
    reason: 'shape',
  },
  'a column with a default is added': { made: plain, ddl: 'alter table T add column w int default 7', reason: 'shape' },
  'a column with a volatile default is added': {
    made: plain,
    ddl: 'alter table T add column w uuid default gen_random_uuid()',
    reason: 'shape',
  },
  'a type is renamed': { made: typed(`enum ('x')`, `'x'`), ddl: 'alter type T_t rename to T_u', reason: 'shape' },
  'a column goes with its type': { made: typed(`enum ('x')`, `'x'`), ddl: 'drop type T_t cascade', reason: 'shape' },
  'capture is repaired': {
    made: plain,
    ddl: `drop trigger plank_update on T; update T set v = 'unseen'; select plank.attach('T')`,
    reason: 'rows',
  },
  'the table is attached again': { made: plain, ddl: `select plank.attach('T')`, reason: null },
  'a default is set': {
    made: plain,
    ddl: 'alter table T alter n set default 5, alter v set statistics 10',
    reason: null,
  },
  'an index is made': { made: plain, ddl: 'create index on T (v)', reason: null },
  'the table is clustered': { made: plain, ddl: 'cluster T using T_pkey', reason: null },
  'the table is vacuumed in full': { made: plain, ddl: 'vacuum full T', reason: null },
  "the table's storage options change": { made: plain, ddl: 'alter table T set (fillfactor = 50)', reason: null },
};

const names = Object.keys(cases);
const tableOf = (name: string) => `t${names.indexOf(name)}`;
const named = (name: string, sql: string) => sql.replaceAll(/\bT(?=_|\b)/g, tableOf(name));

const stage = Stage.of(
  `create table todo (id int primary key, status text); select plank.attach('todo');
   ${names.map((name) => `${named(name, cases[name]!.made)}; select plank.attach('${tableOf(name)}');`).join('\n')}`,
);

const ways: Record<string, { snapshot?: true; where?: object; columns?: string[] }> = {
  rows: { snapshot: true },
  'rows, filtered': { snapshot: true, where: { v: { is: 'not null' } } },
  'rows, some columns': { snapshot: true, columns: ['v'] },
  changes: {},
  'changes, filtered': { where: { v: { is: 'not null' } } },
};

/** Applies the frames that come, as a client does. */
class Follower {
  readonly reasons: string[] = [];
  readonly picture = new Map<string, Row>();
  read = 0;
  isLive = false;
  readonly reader: FrameReader;

  constructor(reader: FrameReader) {
    this.reader = reader;
  }

  /** Applies the frames that have come. Returns whether the subscription is live. */
  take(): boolean {
    while (this.read < this.reader.all.length) this.#take(this.reader.all[this.read++]!);
    return this.isLive;
  }

  #take(frame: ServerFrame): void {
    if (frame.type === 'live') this.isLive = true;
    if (frame.type === 'error') throw new Error(frame.code);
    if (frame.type === 'resync') {
      this.isLive = false;
      this.reasons.push(frame.reason);
      this.picture.clear();
    } else if (frame.type === 'rows') for (const row of frame.rows) this.picture.set(JSON.stringify(row.id), row);
    else if (frame.type === 'change') {
      if (frame.effect !== 'remove') this.picture.set(JSON.stringify(frame.id), frame.data!);
      else if (frame.id === null) this.picture.clear();
      else this.picture.delete(JSON.stringify(frame.id));
    }
  }
}

const sorted = (rows: Iterable<Row>) => [...rows].map((row) => JSON.stringify(row)).sort();

/** One follower for each way to subscribe, over a WebSocket and over an event stream. */
async function followers(url: string, name: string, from?: string): Promise<Follower[]> {
  const all: Follower[] = [];
  for (const way of Object.values(ways)) {
    const ask = { table: tableOf(name), ...way };
    all.push(new Follower(await overWebSocket(url, { ...ask, ...(from ? { from } : {}) })));
    all.push(new Follower(await overEvents(url, { ...ask, ...(from ? { since: from } : {}) })));
  }
  for (const { reader } of all) stage.afterwards(() => reader.close());
  await until('every follower is live', () => all.every((one) => one.take()), 10_000);
  return all;
}

async function becomeRight(all: Follower[], name: string): Promise<void> {
  const { reason } = cases[name]!;
  for (const [i, follower] of all.entries()) {
    const [what, way] = Object.entries(ways)[Math.floor(i / 2)]!;
    const columns = way.columns ? 'id, v' : '*';
    const where = way.where ? 'v is not null' : 'true';
    const { rows } = await stage.sql(
      `select to_json(t)::text as row from (select ${columns} from ${tableOf(name)} where ${where}) t`,
    );
    const wanted = sorted(rows.map(({ row }) => JSON.parse(row as string) as Row));
    const shown = () => ({ isLive: follower.take(), reasons: [...new Set(follower.reasons)] });
    const isRight = () => {
      const { isLive, reasons } = shown();
      const hasReason = reasons.join() === (reason ?? '');
      return isLive && hasReason && (!way.snapshot || sorted(follower.picture.values()).join() === wanted.join());
    };
    await until(`${what} is right`, isRight, 10_000).catch(() => {
      expect({ ...shown(), rows: sorted(follower.picture.values()) }, what).toEqual({
        isLive: true,
        reasons: [reason],
        rows: wanted,
      });
    });
  }
}

let pos = '';
let later: Gateway | undefined;
const done: string[] = [];

test.each(names)('live clients get the right resync and rows when %s', async (name) => {
  pos ||= (await stage.health()).position;
  const here = await followers(stage.embedded.url, name);
  for (const statement of named(name, cases[name]!.ddl).split(/;\s/)) await stage.sql(statement);
  await stage.arrived();
  done.push(name);
  await becomeRight(here, name);
});

test.each(names)('returning clients get the right resync and rows when %s', async (name) => {
  expect(done).toEqual(names);
  later ??= await stage.embedded.startGateway({ NODE_NAME: 'later' });
  const back = await followers(`http://127.0.0.1:${later.port}`, name, pos);
  if (cases[name]!.reason) await becomeRight(back, name);
  for (const { reasons } of back)
    expect([...new Set(reasons)]).toEqual(cases[name]!.reason ? [cases[name]!.reason] : []);
});
