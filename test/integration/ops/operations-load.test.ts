// A search of the outbox that takes long delays nothing else.

import { expect, test } from 'vitest';
import { Stage } from '../../support/stage/stage.ts';
import { until } from '../../support/wait.ts';

// the search casts keys to their type, and the cast waits for an advisory lock
const stage = Stage.of(
  `
  create function passes(text) returns boolean language plpgsql as $$
  begin
    perform pg_advisory_xact_lock_shared(77);
    return true;
  end $$;
  create domain code as text check (passes(value));
  create table part (code code primary key);
  select plank.attach('public.part');
  insert into part values ('a');
`,
  { POOL_SIZE: '2' },
);

const searching = async () => {
  const { rows } = await stage.sql(
    `select count(*)::integer as count from pg_stat_activity
     where datname = current_database() and application_name like 'plank gateway%' and wait_event = 'advisory'`,
  );
  return (rows[0] as { count: number }).count;
};

const status = async (signal: AbortSignal) => {
  const answer = await fetch(`${stage.embedded.opsUrl}/ops/status`, { signal });
  return ((await answer.json()) as { level: string }).level;
};

test('a search of the outbox delays neither REST nor the status, and only one runs at a time', async () => {
  const { opsUrl, url } = stage.embedded;
  const holder = await stage.pool.connect();
  const searches: Promise<Response>[] = [];
  const deadline = () => AbortSignal.timeout(4_000);
  await until('all is well', async () => (await status(deadline())) === 'good', 10_000);
  try {
    await holder.query('select pg_advisory_lock(77)');
    for (let i = 0; i < 4; i++) searches.push(fetch(`${opsUrl}/ops/explain?table=part&id=a`));
    await until('a search runs', async () => (await searching()) > 0, 5_000);
    for (let i = 0; i < 3; i++) {
      expect((await fetch(`${url}/api/items`, { signal: deadline() })).status).toBe(200);
      expect(await status(deadline())).toBe('good');
    }
    expect(await searching()).toBe(1);
  } finally {
    await holder.query('select pg_advisory_unlock_all()');
    holder.release();
  }
  for (const search of searches) {
    const answer = await search;
    expect(answer.status).toBe(200);
    expect(await answer.json()).toMatchObject({ changes: [{ table: 'part', id: 'a' }] });
  }
});
