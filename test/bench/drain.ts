// What carrying captured rows from Postgres to Redis costs, in rows a second and in CPU a row (of the listener, its Postgres backends and
// Redis). A chunk of small transactions is written, then taken in one of these ways:
//
//   plank     drained and published by the listener's own parts, one behind the other
//   held      the same while a transaction with an old snapshot is open, which has kept the versions of hundreds of drains
//   discard   read by SELECT, and thrown away
//   rowwise   read by SELECT, and an XADD for each row, in one pipeline

import { join } from 'node:path';
import { Client } from 'pg';
import { startRedis } from '../../deploy/local/redis.ts';
import { migrate } from '../../shared/migrate.ts';
import { BenchChild } from './child.ts';
import { cpuMicros, requireProc } from './cpu.ts';
import type { Carried, DrainQuestion } from './drain-worker.ts';
import { benchPostgres } from './postgres.ts';
import { type BenchOptions, type BenchResult, compared } from './report.ts';
import { inRounds } from './rounds.ts';

const variants = ['plank', 'held', 'discard', 'rowwise'] as const;
type Variant = (typeof variants)[number];

/** less than a drain hands over at once */
const chunkRows = 4_000;

interface Cost {
  perSecond: number;
  cpuMicrosPerRow: number;
}

export async function drain({ quick, folder, say }: BenchOptions): Promise<BenchResult> {
  const size = quick ? { rounds: 2, chunks: 3, smallDrains: 50 } : { rounds: 9, chunks: 10, smallDrains: 300 };
  const measured = await measureDrains({ variants, ...size, folder, say });
  const of = (variant: Variant, figure: keyof Cost) => measured[variant].map((cost) => cost[figure]);
  const speed = { id: 'c2', name: 'drained and published', unit: 'rows/s', measured: of('plank', 'perSecond') };
  const cpu = { id: 'c2', name: 'CPU a row', unit: 'µs', measured: of('plank', 'cpuMicrosPerRow') };
  const baseline = (variant: Variant, figure: keyof Cost) => ({ baseline: of(variant, figure) });
  const rows = [
    compared({ ...speed, against: 'SELECT, discarded', ...baseline('discard', 'perSecond'), target: { atLeast: 0.6 } }),
    compared({ ...speed, against: 'an XADD a row', ...baseline('rowwise', 'perSecond'), target: { atLeast: 3 } }),
    compared({
      ...speed,
      name: 'drained and published, an old snapshot held',
      measured: of('held', 'perSecond'),
      against: 'none held',
      ...baseline('plank', 'perSecond'),
      target: { atLeast: 0.95 },
    }),
    compared({ ...cpu, against: 'SELECT, discarded', ...baseline('discard', 'cpuMicrosPerRow') }),
    compared({ ...cpu, against: 'an XADD a row', ...baseline('rowwise', 'cpuMicrosPerRow') }),
  ];
  return { rows, raw: { chunkRows, ...size, measured } };
}

interface DrainsOptions<V extends Variant> {
  variants: readonly V[];
  rounds: number;
  /** of `chunkRows` rows, in each round of a variant */
  chunks: number;
  /** of one row each, before them: what an old snapshot keeps of these is in the way */
  smallDrains: number;
  folder: string;
  say: (text: string) => void;
}

export async function measureDrains<V extends Variant>(options: DrainsOptions<V>): Promise<Record<V, Cost[]>> {
  requireProc();
  const { variants, rounds, chunks, smallDrains, folder, say } = options;
  await using stack = new AsyncDisposableStack();
  const databaseUrl = await benchPostgres(folder, stack);
  const redis = await startRedis({ dir: join(folder, 'redis') });
  stack.defer(() => redis.stop());
  await migrate(databaseUrl);
  const [writer, holder] = [new Client(databaseUrl), new Client(databaseUrl)];
  for (const client of [writer, holder]) {
    await client.connect();
    stack.defer(() => client.end());
  }
  await writer.query(`
    create table drained (id bigint generated always as identity primary key, name text, value double precision, at timestamptz default now());
    select plank.attach('drained')`);
  await writer.query('set synchronous_commit = off');
  const worker = await BenchChild.start<DrainQuestion, Carried>('drain-worker.ts', [databaseUrl, redis.url]);
  stack.defer(() => worker.stop());
  const backends = await writer.query<{ pid: number }>(
    `select pid from pg_stat_activity where application_name in ('plank listener', 'bench')`,
  );
  const pids = [worker.pid, redis.pid, ...backends.rows.map(({ pid }) => pid)];

  async function run(variant: V): Promise<Cost> {
    await worker.ask({ ask: 'catch up' });
    if (variant === 'held') await holder.query('begin isolation level repeatable read; select pg_current_xact_id()');
    for (let i = 0; i < smallDrains; i++) {
      await write(writer, 1);
      await worker.ask({ ask: 'plank', rows: 1 });
    }
    await worker.ask({ ask: 'catch up' });
    let sumMs = 0;
    let sumMicros = 0;
    for (let i = 0; i < chunks; i++) {
      await write(writer, chunkRows);
      const before = cpuMicros(pids);
      const { ms } = await worker.ask({ ask: variant === 'held' ? 'plank' : variant, rows: chunkRows });
      sumMicros += cpuMicros(pids) - before;
      sumMs += ms;
    }
    if (variant === 'held') await holder.query('rollback');
    const rows = chunks * chunkRows;
    return { perSecond: (rows * 1_000) / sumMs, cpuMicrosPerRow: sumMicros / rows };
  }
  return await inRounds({ variants, rounds, run, say });
}

/** So many transactions of one row each. */
async function write(writer: Client, count: number): Promise<void> {
  await writer.query(`do $$ begin
    for i in 1..${count} loop
      insert into drained (name, value) values ('the name of a row of usual length', i);
      commit;
    end loop;
  end $$`);
}
