// REST calls wait for locks in Postgres: the relay goes on, other calls are served, and the waiting ones get 503.

import { expect, test } from 'vitest';
import { quantile } from '../../support/stage/client.ts';
import { Stage } from '../../support/stage/stage.ts';
import { until } from '../../support/wait.ts';

const stage = Stage.of(`
  create table todo (id integer primary key, status text);
  insert into todo select n, 'open' from generate_series(1, 20) n;
  create table other (id integer primary key, status text);
  insert into other values (1, 'here');
  create table ticks (id integer primary key);
  create table altered (id integer primary key, a integer);
  select plank.attach('todo'), plank.attach('other'), plank.attach('ticks'), plank.attach('altered');
`);

const requests = 60;
const patch = (path: string) =>
  fetch(`${stage.embedded.url}/api/${path}`, {
    method: 'PATCH',
    headers: { 'content-type': 'application/json' },
    body: '{"status":"done"}',
  });

const timed = async (path: string) => {
  const started = performance.now();
  const { status } = await fetch(`${stage.embedded.url}${path}`);
  return { status, ms: performance.now() - started };
};

/** [name, the statement that holds a lock, a request that waits for it] */
const cases: [what: string, lock: string, ask: (i: number) => Promise<Response>][] = [
  ['writes of one row', 'select from todo where id = 1 for update', () => patch('todo/1')],
  ['writes of a locked table', 'lock table todo in share mode', (i) => patch(`todo/${i % 20}`)],
  [
    'reads of a locked table',
    'lock table todo in access exclusive mode',
    (i) => fetch(`${stage.embedded.url}/api/todo?limit=${i + 1}`),
  ],
];

test.each(cases)('%s that wait for a lock hold up nothing else', async (_what, lock, ask) => {
  const client = await stage.plain({ tables: 'ticks,altered' });
  const holder = await stage.pool.connect();
  const delays: number[] = [];
  let answers: Promise<Response>[] = [];
  try {
    await holder.query(`begin; ${lock}`);
    answers = Array.from({ length: requests }, (_, i) => ask(i));
    await until(
      'the requests wait for the lock',
      async () =>
        (
          await stage.sql(
            `select from pg_stat_activity where wait_event_type = 'Lock' and application_name = 'plank gateway'`,
          )
        ).rowCount! > 4,
      5_000,
    );
    // the catalog is read again while the requests wait
    await stage.sql('alter table altered add b integer; alter table altered drop a; insert into altered values (1, 1)');
    for (let i = 0; i < 40; i++) {
      const before = client.count;
      await stage.sql('insert into ticks select coalesce(max(id), 0) + 1 from ticks');
      delays.push(await until('the change comes', () => client.count > before, 5_000));
    }
    const others = await Promise.all([timed('/health'), timed('/health/ready'), timed('/api/other/1')]);
    for (const { status, ms } of others) expect({ status, late: ms > 1_000 }).toEqual({ status: 200, late: false });
    expect(quantile(delays, 0.99)).toBeLessThan(1_000);
    // the lock is still held: the requests are refused with a time to try again
    for (const answer of await Promise.all(answers))
      expect([answer.status, answer.headers.get('retry-after')]).toEqual([503, '1']);
  } finally {
    await holder.query('rollback');
    holder.release();
    await stage.sql('truncate altered; alter table altered add a integer; alter table altered drop b');
  }
  expect((await patch('todo/1')).status).toBe(200);
});
