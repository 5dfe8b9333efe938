// Defaults that a role or a database sets for its sessions do not change what Plank does: Plank fixes every setting that it depends on,
// in its own sessions and in the functions that run in users' sessions.

import { beforeAll, describe, expect, test } from 'vitest';
import { migrate } from '#shared/postgres/migrate.ts';
import type { ServerFrame } from '#shared/wire.ts';
import { admin } from '../../support/servers/admin.ts';
import { createDatabase, postgresUrl } from '../../support/servers/servers.ts';
import { startEmbedded } from '../../support/stage/embedded.ts';
import { type FrameReader, overWebSocket } from '../../support/stage/frames.ts';
import { session } from '../../support/truth/capture.ts';
import { until } from '../../support/wait.ts';

type Default = [setting: string, value: string];

const defaults: Default[] = [
  ['default_transaction_isolation', 'serializable'],
  ['default_transaction_isolation', 'repeatable read'],
  ['default_transaction_read_only', 'on'],
  ['default_transaction_deferrable', 'on'],
  ['statement_timeout', '100'],
  ['lock_timeout', '100'],
  ['idle_in_transaction_session_timeout', '1'],
  ['idle_session_timeout', '20'],
  ['transaction_timeout', '100'],
  ['search_path', 'shadows, pg_catalog'],
  ['array_nulls', 'off'],
  ['transform_null_equals', 'on'],
  ['quote_all_identifiers', 'on'],
  ['standard_conforming_strings', 'off'],
  ['backslash_quote', 'off'],
  ['bytea_output', 'escape'],
  ['xmlbinary', 'hex'],
  ['xmloption', 'document'],
  ['datestyle', 'German, DMY'],
  ['intervalstyle', 'sql_standard'],
  ['timezone', 'Pacific/Chatham'],
  ['extra_float_digits', '-15'],
  ['row_security', 'off'],
  ['exit_on_error', 'on'],
  ['session_replication_role', 'replica'],
  ['restrict_nonsystem_relation_kind', 'foreign-table'],
  ['client_encoding', 'LATIN1'],
  ['plpgsql.variable_conflict', 'use_variable'],
  ['plpgsql.extra_errors', 'all'],
  ['plan_cache_mode', 'force_custom_plan'],
  ['debug_parallel_query', 'on'],
  ['synchronous_commit', 'off'],
  ['jit_above_cost', '0'],
];

const plans = [
  'bitmapscan',
  'hashagg',
  'hashjoin',
  'indexscan',
  'material',
  'mergejoin',
  'nestloop',
  'seqscan',
  'sort',
  'tidscan',
];
const noPlans = plans.map((plan): Default => [`enable_${plan}`, 'off']);

/** options that an application would set to lift the limits for itself */
const writable = [
  'statement_timeout=0',
  'lock_timeout=0',
  'transaction_timeout=0',
  'idle_session_timeout=0',
  'idle_in_transaction_session_timeout=0',
  'default_transaction_read_only=off',
  'session_replication_role=origin',
  'default_transaction_isolation=read\\ committed',
];

const pets = `
  create table public.pets (id integer primary key, name text, tags text[], raw bytea, at timestamptz, span interval, d float8, note xml);
  create function public.tell() returns trigger language plpgsql as $$
    begin if new.id < new.d then update public.pets set d = new.d where id = new.id + 1; end if; return null; end $$;
  create trigger tell after update on public.pets for each row execute function public.tell();
  select plank.attach('public.pets');
  insert into public.pets values (1, 'first', '{a,b}', E'\\\\x5c00', '2024-03-01 12:00:00+00', '1 day 02:00:00', 0.1, '<a/>');
  insert into public.pets (id, name) values (2, 'second'), (3, 'third')`;

function comparable(frames: readonly ServerFrame[]): unknown[] {
  return frames
    .filter(({ type }) => type !== 'pos' && type !== 'welcome')
    .map((frame) => ({ ...frame, pos: undefined, tx: undefined }));
}

/** What users do, and what they get. */
async function story(settings: readonly Default[], { migrateAnew = false, options = '' } = {}): Promise<unknown> {
  await using stack = new AsyncDisposableStack();
  const database = await createDatabase();
  stack.defer(() => database.drop());
  if (migrateAnew) await admin(database.url, 'drop schema plank cascade');
  // names that an attacker could want to be found first
  await admin(
    database.url,
    `create schema shadows; create function shadows.count(bigint) returns bigint language sql as 'select 0::bigint';
     create function shadows.format_type(oid, integer) returns text language sql as 'select ''text''::text'`,
  );
  const alter = settings.map(([setting, value]) => {
    const literal = setting === 'search_path' ? value : `'${value}'`;
    return `alter database ${database.name} set ${setting} = ${literal}`;
  });
  await admin(await postgresUrl(), alter.join(';'));
  const own = new URL(database.url);
  own.searchParams.set('options', writable.map((setting) => `-c ${setting}`).join(' '));
  if (migrateAnew) await migrate(database.url);
  const writer = await session(own.href);
  stack.defer(() => writer.end());
  const given = new URL(database.url);
  if (options !== '') given.searchParams.set('options', options);
  const embedded = await startEmbedded(given.href, { CANARY_INTERVAL_MS: '200', RETENTION_MS: '600000' });
  stack.defer(() => embedded.stop());
  await writer.query(pets);
  const open = async (ask: Parameters<typeof overWebSocket>[1], url = embedded.url): Promise<FrameReader> => {
    const reader = await overWebSocket(url, ask);
    stack.defer(() => reader.close());
    return reader;
  };
  await until('the gateway serves the table', async () => (await fetch(`${embedded.url}/api/pets`)).ok, 5_000);
  const live = await open({ table: 'pets', snapshot: true, where: { id: { lt: 100 } } });
  const beginning = [await live.rows(), await live.expect('live')];
  const from = (beginning[1] as { pos: string }).pos;
  // a trigger in a trigger in a trigger, and a later change
  await writer.query(
    `begin; update public.pets set d = 3 where id = 1; update public.pets set name = 'one' where id = 1; commit`,
  );
  await writer.query(
    `insert into public.pets (id, name, tags) values (6, 'sixth', array[null, 'x']), (4, null, null) on conflict do nothing`,
  );
  await writer.query('update public.pets set id = id + 10 where id = 4');
  await writer.query('delete from public.pets where id = 14');
  const rest = async (method: string, path: string, body?: unknown) => {
    const response = await fetch(`${embedded.url}/api/pets${path}`, {
      method,
      headers: { 'content-type': 'application/json' },
      ...(body === undefined ? {} : { body: JSON.stringify(body) }),
    });
    return [response.status, await response.text()];
  };
  const answers = [
    await rest('POST', '', {
      id: 5,
      name: "it's \\ ü",
      tags: ['a', null],
      raw: '\\x00ff',
      at: '2024-03-01T12:00:00Z',
      note: 'a<b/>',
    }),
    await rest('PATCH', '/5', { span: 'P1DT2H', d: 0.30000000000000004 }),
    await rest('GET', '/5'),
    await rest('GET', '?limit=2'),
    await rest('DELETE', '/6'),
  ];
  // a read waits for a lock as long as Plank allows, not as long as the defaults here allow
  await writer.query('begin; lock table public.pets in access exclusive mode');
  const waiting = rest('GET', '/5');
  const since = `select from pg_stat_activity where datname = current_database() and wait_event_type = 'Lock'
    and clock_timestamp() - query_start > interval '150 ms'`;
  await until('a read waits', async () => (await writer.query(since)).rowCount === 1, 5_000);
  await writer.query('commit');
  answers.push(await waiting);
  const changes = comparable(await live.changes(14));
  const again = await open(
    { table: 'pets', where: { id: { lt: 100 } }, from },
    `http://127.0.0.1:${(await embedded.startGateway()).port}`,
  );
  expect(comparable(await again.changes(14))).toEqual(changes);
  await writer.query('alter table public.pets add column age integer default 7');
  const resync = comparable([await live.expect('resync')]);
  const rows = await live.rows();
  const metric = async (name: string) =>
    Number(new RegExp(`^${name}\\S* (\\d+)`, 'm').exec(await embedded.registry.metrics())?.[1] ?? 0);
  await until('a canary has come', async () => (await metric('plank_canaries_total')) > 0, 5_000);
  expect(await metric('plank_canary_failures_total')).toBe(0);
  expect(await metric('plank_duplicate_skips_total')).toBe(0);
  return {
    beginning: beginning[0],
    answers,
    changes,
    resync,
    rows,
    check: (await writer.query('select * from plank.check()')).rows,
  };
}

let ordinary: unknown;

beforeAll(async () => {
  ordinary = await story([]);
});

test('Plank works the same if all defaults are hostile', async () => {
  expect(await story([...defaults, ...noPlans], { migrateAnew: true })).toEqual(ordinary);
});

test('Plank works the same if the planner may use nothing', async () => {
  expect(await story(noPlans)).toEqual(ordinary);
});

test('Plank works the same if DATABASE_URL has options of its own', async () => {
  const options = '-c default_transaction_read_only=on -c bytea_output=escape -c array_nulls=off';
  expect(await story([], { options })).toEqual(ordinary);
});

describe.concurrent('single hostile defaults', () => {
  test.for(defaults)('Plank works the same with %s = %s', async (setting, { expect }) => {
    expect(await story([setting])).toEqual(ordinary);
  });
});
