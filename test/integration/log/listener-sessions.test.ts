// The periodic calls of a leader on a slow Postgres: each runs once at a time, in sessions that end.

import { pino } from 'pino';
import { expect, test } from 'vitest';
import { keepRetention } from '#listener/retention.ts';
import { createPool } from '#shared/postgres/postgres.ts';
import { listenerSchema, readConfig } from '#shared/process/config.ts';
import { createRegistry, listenerMetrics } from '#shared/process/metrics.ts';
import { testPool } from '../../support/servers/pool.ts';
import { createDatabase } from '../../support/servers/servers.ts';
import { Stage } from '../../support/stage/stage.ts';
import { until } from '../../support/wait.ts';

const stage = Stage.of('select', { RETENTION_MS: '1000', CANARY_INTERVAL_MS: '100' });
const calls = ['plank.purge', 'plank.gauges', 'plank.canary'];

/** The calls that run at this moment: since when, and how many. */
async function running(): Promise<Map<string, { since: string; count: number }>> {
  const { rows } = await stage.sql(
    `select substring(query from 'plank\\.\\w+') as name, min(query_start)::text as since, count(*)::integer as count
     from pg_stat_activity
     where datname = current_database() and application_name like 'plank listener%' and state = 'active'
     group by 1`,
  );
  return new Map((rows as { name: string; since: string; count: number }[]).map(({ name, ...at }) => [name, at]));
}

test('gauges, canaries and retention each wait for their previous call', async () => {
  const holder = await stage.pool.connect();
  try {
    await holder.query(
      'begin; lock table plank.outbox in exclusive mode; lock table plank.log in access exclusive mode',
    );
    const seen = new Map(calls.map((name) => [name, new Set<string>()]));
    await until(
      'each call was given up and made again',
      async () => {
        const now = await running();
        for (const name of calls) {
          const { since, count } = now.get(name) ?? { since: '', count: 0 };
          expect(count, `sessions with ${name}`).toBeLessThanOrEqual(1);
          if (count > 0) seen.get(name)!.add(since);
        }
        return [...seen.values()].every(({ size }) => size > 1);
      },
      20_000,
    );
  } finally {
    await holder.query('rollback');
    holder.release();
  }
});

test('a purge that takes too long is tried again with fewer rows', async () => {
  await using stack = new AsyncDisposableStack();
  const database = await createDatabase();
  stack.defer(() => database.drop());
  const options = { applicationName: 'test', statementTimeoutMs: 500, max: 1, onError: () => {} };
  const pool = createPool(database.url, options);
  stack.defer(() => pool.end());
  const direct = testPool(database.url, 1);
  stack.defer(() => direct.end());
  // fewer than 500 of the 1,000 rows are deleted within 500 ms
  await direct.query(`
    create table bulk (id integer primary key);
    select plank.attach('bulk');
    insert into bulk select generate_series(1, 1000);
    create function slow() returns trigger language plpgsql as $$ begin perform pg_sleep(0.001); return old; end $$;
    create trigger slow before delete on plank.outbox for each row execute function slow()`);
  const { rows: leads } = await direct.query<{ term: string }>(`select term from plank.lead('test', '1 hour')`);
  const term = Number(leads[0]!.term);
  await direct.query(`select from plank.drain($1, 5000, '1 hour', false)`, [term]);
  const over = new AbortController();
  const kept = keepRetention({
    pool,
    term,
    config: readConfig(listenerSchema, { DATABASE_URL: database.url, RETENTION_MS: '20' }),
    log: pino({ level: 'silent' }),
    metrics: listenerMetrics(createRegistry('test')),
    signal: over.signal,
  });
  stack.defer(() => kept);
  stack.defer(() => over.abort());
  const left = async () =>
    Number((await direct.query<{ n: string }>('select count(*) as n from plank.outbox')).rows[0]!.n);
  await until('the outbox is empty', async () => (await left()) === 0, 30_000);
});
