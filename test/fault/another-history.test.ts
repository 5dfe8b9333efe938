// I6, I7: a restore, a copy or files of an earlier time begin a new epoch. A client that has begun again, or comes back with
// a position of the abandoned history, gets no change of that history. No client begins again more than once. A mere
// restart, or a crash, makes no client begin again.

import { afterAll, beforeAll, expect, test } from 'vitest';
import { migrate } from '#shared/postgres/migrate.ts';
import type { ServerFrame } from '#shared/wire.ts';
import { admin } from '../support/servers/admin.ts';
import { DistributionPostgres } from '../support/servers/distribution-postgres.ts';
import { type FrameReader, overWebSocket } from '../support/stage/frames.ts';
import { type Relay, startRelay } from '../support/stage/relay.ts';
import { until } from '../support/wait.ts';

const stack = new AsyncDisposableStack();
let postgres: DistributionPostgres;

beforeAll(async () => {
  postgres = await DistributionPostgres.start();
  stack.defer(() => postgres.stop());
});

afterAll(() => stack.disposeAsync());

interface Case {
  name: string;
  /** saves a state of the database, which then changes */
  save: () => Promise<unknown>;
  /** brings that state back */
  restore: () => Promise<unknown>;
  /** which positions stay valid: none, those up to the saved state, or all */
  keeps: 'nothing' | 'saved' | 'all';
}

const url = (name = 'app') => postgres.url(name);
const server = (sql: string) => admin(url('postgres'), sql);
const dump = async () => postgres.tool('pg_dump', ['-Fc', '-f', await postgres.file('dump'), url()]);
const pgRestore = async (...args: string[]) =>
  postgres.tool('pg_restore', [...args, '-d', url(), await postgres.file('dump')]);

const cases: Case[] = [
  {
    name: 'a dump into a database that was created again',
    save: dump,
    async restore() {
      await server('drop database app with (force)');
      await server('create database app');
      await pgRestore();
    },
    keeps: 'nothing',
  },
  {
    name: 'a dump in place, over the tables that it replaces',
    save: dump,
    restore: () => pgRestore('--clean', '--if-exists'),
    keeps: 'nothing',
  },
  {
    name: "a dump's rows, in the existing tables",
    save: dump,
    async restore() {
      await admin(
        url(),
        `truncate public.t, plank.outbox, plank.attachments, plank.log, plank.chunks, plank.epochs, plank.leader, plank.migrations cascade`,
      );
      await pgRestore('--data-only', '--disable-triggers');
    },
    keeps: 'nothing',
  },
  {
    name: 'a swap for a copy of the database',
    async save() {
      await server('drop database if exists copy');
      await until(
        'the database is copied',
        () =>
          server(`select pg_terminate_backend(pid) from pg_stat_activity where datname = 'app'`)
            .then(() => server('create database copy template app'))
            .then(
              () => true,
              () => false,
            ),
        10_000,
      );
    },
    async restore() {
      await server('drop database app with (force)');
      await server('alter database copy rename to app');
    },
    keeps: 'saved',
  },
  {
    name: 'a swap for files of an earlier time',
    async save() {
      await postgres.halt();
      await postgres.saveFiles();
      await postgres.resume();
    },
    async restore() {
      await postgres.halt();
      await postgres.restoreFiles();
      await postgres.resume();
    },
    keeps: 'saved',
  },
  {
    name: 'a restart',
    save: async () => {},
    async restore() {
      await postgres.halt();
      await postgres.resume();
    },
    keeps: 'all',
  },
  {
    name: 'a crash',
    save: async () => {},
    async restore() {
      await postgres.halt('immediate');
      await postgres.resume();
    },
    keeps: 'all',
  },
];

const ids = (frames: readonly ServerFrame[]): unknown[] =>
  frames.flatMap((frame) =>
    frame.type === 'change' ? [frame.id] : frame.type === 'rows' ? frame.rows.map(({ id }) => id) : [],
  );
const resyncs = (frames: readonly ServerFrame[]) => frames.filter(({ type }) => type === 'resync');
/** ids of the abandoned history */
const isAbandoned = (id: unknown) => (id as number) >= 100 && (id as number) < 200;

async function written(ids: string): Promise<void> {
  const insert = `insert into public.t select generate_series(${ids})`;
  await until(
    'the rows are written',
    () =>
      admin(url(), insert).then(
        () => true,
        () => false,
      ),
    10_000,
  );
}

const arrived = (readers: readonly FrameReader[], id: number) =>
  until(`${id} has arrived`, () => readers.every(({ all }) => ids(all).includes(id)), 15_000);

const table = cases.flatMap((one) => [
  { ...one, redis: 'left as it was' },
  ...(one.keeps === 'all' ? [] : [{ ...one, redis: 'emptied' }]),
]);

test.each(table)(
  'clients begin again at most once after $name, with Redis $redis',
  async ({ save, restore, keeps, redis }) => {
    await using own = new AsyncDisposableStack();
    await server('drop database if exists app with (force)');
    await server('create database app');
    await migrate(url());
    await admin(url(), `create table public.t (id integer primary key); select plank.attach('public.t')`);
    const relay: Relay = await startRelay(url(), { LEASE_MS: '3000' });
    own.defer(() => relay.stop());
    const open = async (ask: object, at = relay.urls[0]!) => {
      const reader = await overWebSocket(at, { table: 't', ...ask });
      own.defer(async () => reader.close());
      return reader;
    };
    const staying = await Promise.all(relay.urls.map((at) => open({ snapshot: true }, at)));
    await Promise.all(staying.map((reader) => reader.rows()));
    await written('1, 3');
    await arrived(staying, 3);
    const kept = (staying[0]!.all.at(-1) as { pos: string }).pos;
    await save();
    await written('100, 119');
    await arrived(staying, 119);
    const late = (staying[0]!.all.findLast(({ type }) => type === 'change') as { pos: string }).pos;
    await restore();
    if (redis === 'emptied') await relay.flush();
    // the new history becomes longer than the abandoned one, or stays shorter
    const last = redis === 'emptied' ? 240 : 204;
    await written(`200, ${last}`);
    await arrived(staying, last);

    const comesBack = async (from: string, at?: string) => {
      const reader = await open({ from, snapshot: true }, at);
      await arrived([reader], last);
      return reader.all;
    };
    const third = await relay.startGateway();
    const back = await Promise.all([comesBack(late), comesBack(late, third), comesBack(kept), comesBack(kept, third)]);
    const rows = (await admin(url(), 'select id from public.t order by id')).map(({ id }) => Number(id));
    for (const { all } of staying) {
      expect(resyncs(all)).toHaveLength(keeps === 'all' ? 0 : 1);
      const since = all.findLastIndex(({ type }) => type === 'resync');
      if (keeps !== 'all') expect(ids(all.slice(since))).toEqual(rows);
    }
    for (const [i, frames] of back.entries()) {
      const isValid = keeps === 'all' || (keeps === 'saved' && i > 1);
      expect(resyncs(frames)).toHaveLength(isValid ? 0 : 1);
      if (keeps !== 'all') expect(ids(frames).filter(isAbandoned)).toEqual([]);
    }
    for (const at of relay.urls) expect(await (await fetch(`${at}/health`)).json()).toMatchObject({ status: 'ok' });
  },
);
