// A dump takes the attachments to another catalog, in which tables and columns have other numbers. However it is restored, excluded
// columns stay excluded, changes are captured as before, and Plank reports that this is another database, and the statement to run.

import { pino } from 'pino';
import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import { examineCapture } from '#deploy/doctor/capture.ts';
import { inspectCapture } from '#listener/inspection.ts';
import { migrate } from '#shared/postgres/migrate.ts';
import { createRegistry, listenerMetrics } from '#shared/process/metrics.ts';
import { admin } from '../../support/servers/admin.ts';
import { DistributionPostgres } from '../../support/servers/distribution-postgres.ts';
import { testPool } from '../../support/servers/pool.ts';
import { Capture } from '../../support/truth/capture.ts';
import { until } from '../../support/wait.ts';

let postgres: DistributionPostgres;
let number = 0;

beforeAll(async () => {
  postgres = await DistributionPostgres.start();
  await migrate(await empty('source'));
  await admin(
    url('source'),
    `create role owner_of_tables; create role restorer login superuser; create role plain login;
     create schema "my app"; create schema early; grant usage on schema "my app" to owner_of_tables;
     create table "my app".users (id integer primary key, junk text, junk2 text, email text, password_hash text, "made At" date);
     alter table "my app".users drop column junk, drop column junk2; alter table "my app".users owner to owner_of_tables;
     create table public.items (junk text, id integer primary key, note text, secret text); alter table items drop column junk;
     create table early.parts (id integer primary key, junk text, v text, secret text) partition by range (id); alter table early.parts drop column junk;
     create table early.parts_1 partition of early.parts for values from (0) to (100);
     select plank.attach('"my app".users', exclude => '{password_hash}', read_only => '{made At}'),
            plank.attach('items', exclude => '{secret}'), plank.attach('early.parts', exclude => '{secret}');
     alter table "my app".users rename column password_hash to hash; select plank.attach('items', exclude => '{secret,note}');
     select plank.attach('items', exclude => '{secret}');
     insert into items values (1, 'a', 'hush')`,
  );
  await admin(url('source'), 'create table unseen (id integer primary key, old text, v text)');
});

afterAll(async () => {
  await postgres?.stop();
});

function url(name: string, user = 'postgres'): string {
  const own = new URL(postgres.url(name));
  own.username = user;
  return own.href;
}

async function empty(name: string, options = ''): Promise<string> {
  await admin(postgres.url(), `create database ${name} ${options}`);
  return url(name);
}

/** the dump that all tests share */
let dumped: Promise<string> | undefined;
const dumpOfSource = () => (dumped ??= dump('source'));

async function dump(from: string, ...options: string[]): Promise<string> {
  const file = await postgres.file(`dump-${(number += 1)}`);
  await postgres.tool('pg_dump', ['-Fc', '-f', file, ...options, '-d', url(from)]);
  return file;
}

/** Restores as this role, in one step for each list of options. Resolves with the database's name. */
async function restore(file: string, user: string, ...steps: string[][]): Promise<string> {
  const name = `restored_${(number += 1)}`;
  await empty(name, `owner ${user}`);
  // pg_restore -n creates no schemas
  if (steps[0]!.includes('-n'))
    await admin(
      url(name),
      'create schema "my app"; create schema early; create schema plank; grant usage on schema plank to public',
    );
  for (const options of steps) await postgres.tool('pg_restore', [...options, '-d', url(name, user), file]);
  return name;
}

const problems = async (name: string) =>
  (await admin(url(name), 'select problem from plank.check() order by 1')).map(({ problem }) => problem!);
const moved = (table: string) =>
  `${table} was attached in another database, of which this one is a restored dump; run: select plank.attach('${table}')`;
const all = ['"my app".users', 'early.parts', 'public.items'];

/** The tables that clients see: name → columns. */
async function served(name: string): Promise<Record<string, string[]>> {
  const rows = await admin(
    url(name),
    `select name, array_to_string(array(select c->>'name' from json_array_elements(columns) c), ' ') as columns from plank.catalog`,
  );
  return Object.fromEntries(rows.map((row) => [row['name'], row['columns']!.split(' ')]));
}

/** Each kind of write is captured as rows are read, without excluded columns. */
async function writesAreCaptured(name: string): Promise<void> {
  const capture = await Capture.start(url(name));
  try {
    expect(
      await capture.brief(`insert into items values (2, 'b', 'hush'); update items set secret = 'hush!' where id = 2;
        insert into "my app".users values (1, 'e', 'hush', '2024-01-01'); insert into early.parts values (1, 'v', 'hush')`),
    ).toEqual([
      'I 2 {"id":2,"note":"b"}',
      'U 2 {"id":2,"note":"b"} {"id":2,"note":"b"}',
      'I 1 {"id":1,"email":"e","made At":"2024-01-01"}',
      'I 1 {"id":1,"v":"v"}',
    ]);
    expect(await capture.brief('truncate items')).toEqual(['T']);
    expect(await capture.brief('truncate early.parts_1')).toEqual(['R']);
    expect(await capture.brief('truncate early.parts')).toEqual(['T']);
    expect(await capture.brief('truncate "my app".users')).toEqual(['T']);
  } finally {
    await capture.stop();
  }
}

describe('a dump that is restored', () => {
  const visible = { 'my app.users': ['id', 'email', 'made', 'At'], items: ['id', 'note'], 'early.parts': ['id', 'v'] };

  test.each([
    ['as it is', 'postgres', [[]]],
    ['to another owner', 'restorer', [['--no-owner']]],
    ['to another owner, without privileges', 'restorer', [['--no-owner', '--no-privileges']]],
    ['table by table', 'postgres', [['--section=pre-data'], ['--section=data'], ['--section=post-data']]],
    ['by several sessions at once', 'postgres', [['--jobs=3']]],
    [
      "with Plank's schema last",
      'postgres',
      [
        ['-n', 'my app', '-n', 'early', '-n', 'public', '--section=pre-data', '--section=data'],
        ['-n', 'plank'],
        ['-n', 'my app', '-n', 'early', '-n', 'public', '--section=post-data'],
      ],
    ],
  ])('a dump restored %s captures and serves the same', async (_, user, steps) => {
    const name = await restore(await dumpOfSource(), user, ...steps.map((step) => [...step]));
    expect(await problems(name)).toEqual(all.map(moved));
    expect(await served(name)).toEqual(visible);
    // earlier images belong to another history
    expect(await admin(url('source'), 'select id from plank.former')).toHaveLength(1);
    expect(await admin(url(name), 'select id from plank.former')).toEqual([]);
    await writesAreCaptured(name);
    await admin(url(name), 'select plank.attach(relation) from plank.attached');
    expect(await problems(name)).toEqual([]);
    expect(await served(name)).toEqual(visible);
    await writesAreCaptured(name);
  });

  test('DDL of a restored dump is followed before its tables are attached again', async () => {
    const name = await restore(await dumpOfSource(), 'postgres', []);
    await admin(
      url(name),
      'alter table items rename to things; alter schema early rename to late; alter table things rename column secret to hidden',
    );
    expect(await problems(name)).toEqual([moved('"my app".users')]);
    expect(await served(name)).toEqual({
      'my app.users': visible['my app.users'],
      things: ['id', 'note'],
      'late.parts': ['id', 'v'],
    });
    await admin(url(name), 'drop schema "my app" cascade');
    expect(await problems(name)).toEqual([]);
  });

  test('the doctor and a starting listener report a restored dump', async () => {
    const name = await restore(await dumpOfSource(), 'postgres', []);
    const pool = testPool(url(name), 2);
    const client = await pool.connect();
    const abort = new AbortController();
    try {
      const findings: string[] = [];
      const limits = { retentionMs: 3_600_000, retentionBytes: 1e9, patient: false, say: () => {} };
      for await (const { level, says } of examineCapture(client, limits)) findings.push(`${level}: ${says}`);
      expect(findings).toContain(
        'fault: items: public.items was attached in another database, of which this one is a restored dump',
      );
      const lines: { level: number; tables?: string[]; msg: string }[] = [];
      const log = pino({ level: 'info' }, { write: (line: string) => void lines.push(JSON.parse(line)) });
      const inspecting = inspectCapture({
        pool,
        log,
        metrics: listenerMetrics(createRegistry('test')),
        signal: abort.signal,
      });
      await until('the listener has checked', () => lines.length > 1, 10_000);
      abort.abort();
      await inspecting;
      expect(lines[0]).toMatchObject({ level: 40, tables: ['my app.users', 'items', 'early.parts'] });
      expect(lines[0]!.msg).toMatch(/^this database is a restored dump/);
    } finally {
      abort.abort();
      client.release();
      await pool.end();
    }
  });

  test('a copy of the files or of a template is not reported as a dump', async () => {
    await admin(postgres.url(), 'create database copied template source');
    expect(await problems('copied')).toEqual([]);
    expect(await served('copied')).toEqual(visible);
  });
});

describe('restored dumps with unknown columns', () => {
  test('a table whose renamed column no event reported is not served after a restore', async () => {
    await admin(postgres.url(), 'create database unfollowed template source');
    await admin(
      url('unfollowed'),
      'drop event trigger plank_ddl; drop event trigger plank_drop; alter table items rename column secret to hidden',
    );
    expect(await served('unfollowed')).toMatchObject({ items: ['id', 'note'] });
    const name = await restore(await dump('unfollowed'), 'postgres', []);
    expect(await served(name)).not.toHaveProperty('items');
    const [problem] = (await problems(name)).filter((text) => text.includes('items'));
    expect(problem).toMatch(
      /^public\.items has no column secret, which was excluded or read-only in the database .* so it is not served; run: /,
    );
    await expect(admin(url(name), "select plank.attach('items')")).rejects.toThrow(
      'public.items has no column secret here',
    );
    // no write fails, and no change has the excluded column
    await admin(url(name), "insert into items values (5, 'b', 'hush'); truncate items");
    expect(await admin(url(name), "select * from plank.outbox o where o::text like '%hush%'")).toEqual([]);
    await admin(
      url(name),
      "select plank.attach('items', exclude => '{hidden}'), plank.attach('early.parts'), plank.attach('\"my app\".users')",
    );
    expect(await problems(name)).toEqual([]);
    expect(await served(name)).toEqual({ ...(await served('source')), items: ['id', 'note'] });
    await admin(postgres.url(), 'drop database unfollowed');
  });

  test('a table that has the number of a dropped one is not taken for it', async () => {
    await admin(postgres.url(), 'create database dropped template source');
    await admin(url('dropped'), 'drop event trigger plank_ddl; drop event trigger plank_drop; drop table items');
    expect(await problems('dropped')).toEqual(['the table was dropped; run: delete from plank.attached where id = 2']);
    const name = await restore(await dump('dropped'), 'postgres', []);
    await admin(url(name), "update plank.attachments set relation = 'unseen'::regclass where id = 2");
    expect(await served(name)).toEqual({ 'my app.users': ['id', 'email', 'made', 'At'], 'early.parts': ['id', 'v'] });
    expect(await problems(name)).toContain(
      'the table is not in this database, which is a restored dump; run: delete from plank.attached where id = 2',
    );
    await admin(
      url(name),
      'delete from plank.attached where id = 2; select plank.attach(relation) from plank.attached',
    );
    expect(await problems(name)).toEqual([]);
    await admin(postgres.url(), 'drop database dropped');
  });

  test('captured tables without an attachment in the dump are found', async () => {
    const name = await restore(await dump('source', '--schema-only'), 'postgres', []);
    expect(await problems(name)).toEqual(
      all.map(
        (table) => `changes of ${table} are captured, but it is not attached; run: select plank.attach('${table}')`,
      ),
    );
    expect(await served(name)).toEqual({});
  });
});
