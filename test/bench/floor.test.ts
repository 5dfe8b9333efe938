// What must not become twice as dear unnoticed: ratios of CPU or memory, each between Plank and something that does less or the same, taken
// in turns in one run. These measure nothing (`npm run bench` does). A floor is well above what a loaded machine with two cores ever
// showed, and below what a doubling gives, which was tried (what an idle connection keeps varies little: its floor is nearer):
//
//                                             seen          floor   where it was made worse
//   hub, 16 changes a flush ÷ ws.send         0.058–0.068   0.09    0.10  two writes a socket instead of one
//   drain and publish ÷ SELECT and discard    1.1–1.25      1.6     1.8  rows read a second time; 10.6  an XADD for each change
//   capture ÷ row trigger with pg_notify      2.0–2.3       3       3.7  single rows joined as many are
//   objects of an idle connection ÷ of ws   1.33–1.34  1.38  1.45  a listener by `once`

import { mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { Client } from 'pg';
import { expect, test } from 'vitest';
import { startPostgres } from '#deploy/local/postgres.ts';
import { migrate } from '#shared/postgres/migrate.ts';
import { BenchChild } from './child.ts';
import { cpuMicros } from './cpu.ts';
import { measureDrains } from './drain.ts';
import type { FloorQuestion, MicrosPerDelivery } from './floor-worker.ts';
import { weighIdle } from './idle.ts';
import type { ClientsQuestion, Connected } from './resume-clients.ts';
import { inRounds } from './rounds.ts';
import { ratio } from './stats.ts';

/** cpu.ts reads /proc */
const onLinux = test.skipIf(process.platform !== 'linux');
const say = () => {};

async function folder(stack: AsyncDisposableStack): Promise<string> {
  const path = await mkdtemp(join(tmpdir(), 'plank-floor-'));
  stack.defer(() => rm(path, { recursive: true, force: true }));
  return path;
}

async function database(stack: AsyncDisposableStack, sql: string): Promise<{ url: string; client: Client }> {
  const postgres = await startPostgres({ dataDir: await folder(stack), fsync: false });
  stack.defer(() => postgres.stop());
  await migrate(postgres.url);
  const client = new Client({ connectionString: postgres.url });
  await client.connect();
  stack.defer(() => client.end());
  await client.query(sql);
  return { url: postgres.url, client };
}

test('broadcasting a batch of changes costs a fraction of sending each one to each socket', async () => {
  await using stack = new AsyncDisposableStack();
  const sql = `create table floor (id bigint primary key, name text); select plank.attach('floor')`;
  const { url } = await database(stack, sql);
  const worker = await BenchChild.start<FloorQuestion, MicrosPerDelivery>('floor-worker.ts', [url, 'floor']);
  stack.defer(() => worker.stop());
  const crowd = await BenchChild.start<ClientsQuestion, Connected>('resume-clients.ts');
  stack.defer(() => crowd.stop());
  const target = `ws://127.0.0.1:${worker.port}/`;
  await crowd.ask({ ask: 'connect', url: target, clients: 200, bytes: 0, deadlineMs: 20_000 });

  const cost = await inRounds({
    variants: ['hub', 'ws'],
    rounds: 5,
    run: (way) => worker.ask({ way, flushes: way === 'hub' ? 60 : 6, perFlush: 16 }),
    say,
  });
  expect(ratio(cost.hub, cost.ws).median, JSON.stringify(cost)).toBeLessThan(0.09);
});

onLinux('to drain and publish a row costs little more than to read it', async () => {
  await using stack = new AsyncDisposableStack();
  const cost = await measureDrains({
    variants: ['plank', 'discard'],
    rounds: 7,
    chunks: 4,
    folder: await folder(stack),
    say,
  });
  const micros = (of: readonly { cpuMicrosPerRow: number }[]) => of.map(({ cpuMicrosPerRow }) => cpuMicrosPerRow);
  expect(ratio(micros(cost.plank), micros(cost.discard)).median, JSON.stringify(cost)).toBeLessThan(1.6);
});

onLinux('to capture a row costs about what it costs to notify of it', async () => {
  await using stack = new AsyncDisposableStack();
  const { client } = await database(
    stack,
    `create table captured (id int primary key, name text not null, value double precision, at timestamptz not null default now()) with (fillfactor = 50);
     insert into captured (id, name, value) select g, 'the name of row ' || g, g from generate_series(1, 1000) g;
     create table notified (like captured including all) with (fillfactor = 50);
     insert into notified select * from captured;
     create function floor_notify() returns trigger language plpgsql as $$
     begin
       perform pg_notify('floor', row_to_json(new)::text);
       return null;
     end $$;
     create trigger floor_notify after update on notified for each row execute function floor_notify();
     select plank.attach('captured');
     set synchronous_commit = off`,
  );
  const { pid } = (await client.query<{ pid: number }>('select pg_backend_pid() as pid')).rows[0]!;
  const updates = 2_000;
  const cost = await inRounds({
    variants: ['captured', 'notified'],
    rounds: 7,
    run: async (table) => {
      const before = cpuMicros([pid]);
      await client.query(`do $$ begin
        for i in 1..${updates} loop
          update ${table} set value = value + 1, at = now() where id = i % 1000 + 1;
          commit;
        end loop;
      end $$`);
      return (cpuMicros([pid]) - before) / updates;
    },
    say,
  });
  expect(ratio(cost.captured, cost.notified).median, JSON.stringify(cost)).toBeLessThan(3);
});

onLinux('an idle connection weighs little more than one that `ws` alone keeps open', async () => {
  await using stack = new AsyncDisposableStack();
  const weights = await weighIdle({
    variants: ['plank', 'ws'],
    rounds: 1,
    connections: 2_000,
    folder: await folder(stack),
    say,
  });
  // resident memory is another one each time, and not the objects' alone
  const heap = (of: keyof typeof weights) => weights[of].map((weight) => weight.heap);
  expect(ratio(heap('plank'), heap('ws')).median, JSON.stringify(weights)).toBeLessThan(1.38);
});
