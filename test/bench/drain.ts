// What carrying captured rows from Postgres to Redis costs, in rows a second and in CPU a row (of the listener, its Postgres backends and
// Redis). A chunk of small transactions is written, then taken in one of these ways:
//
//   plank     drained and published by the listener's own parts, one behind the other
//   discard   read by SELECT, and thrown away
//   rowwise   read by SELECT, and an XADD for each row, in one pipeline
//
// And what a transaction with an old snapshot costs, which has kept the versions of hundreds of drains: two servers alike carry chunks
// in turns, one with such a transaction and one without, and change places in each round. Each chunk makes a pair with the one that
// the other server carried next to it.

import { join } from 'node:path';
import { Client } from 'pg';
import { startRedis } from '#deploy/local/redis.ts';
import { migrate } from '#shared/postgres/migrate.ts';
import { BenchChild } from './child.ts';
import { cpuMicros, requireProc } from './cpu.ts';
import type { Carried, DrainQuestion } from './drain-worker.ts';
import { benchPostgres } from './postgres.ts';
import { type BenchOptions, type BenchResult, compared } from './report.ts';
import { inRounds } from './rounds.ts';
import { ratio } from './stats.ts';

const variants = ['plank', 'discard', 'rowwise'] as const;
type Variant = (typeof variants)[number];

/** less than a drain hands over at once */
const chunkRows = 4_000;

interface Cost {
  perSecond: number;
  cpuMicrosPerRow: number;
}

export async function drain({ quick, folder, say }: BenchOptions): Promise<BenchResult> {
  const size = quick ? { rounds: 2, chunks: 3 } : { rounds: 9, chunks: 10 };
  const heldSize = quick ? { rounds: 2, chunks: 3, smallDrains: 50 } : { rounds: 10, chunks: 16, smallDrains: 300 };
  const measured = await measureDrains({ variants, ...size, folder, say });
  const snapshot = await measureHeld({ ...heldSize, folder, say });
  const of = (costs: readonly Cost[], figure: keyof Cost) => costs.map((cost) => cost[figure]);
  const speed = { id: 'c2', name: 'drained and published', unit: 'rows/s' };
  const cpu = { id: 'c2', name: 'CPU a row', unit: 'µs' };
  const against = (variant: Variant, figure: keyof Cost) => ({
    measured: of(measured.plank, figure),
    baseline: of(measured[variant], figure),
  });
  const withHeld = (figure: keyof Cost) => ({
    measured: of(snapshot.held, figure),
    against: 'none held',
    baseline: of(snapshot.none, figure),
  });
  const rows = [
    compared({
      ...speed,
      against: 'SELECT, discarded',
      ...against('discard', 'perSecond'),
      target: { atLeast: 0.6 },
    }),
    compared({ ...speed, against: 'an XADD a row', ...against('rowwise', 'perSecond'), target: { atLeast: 3 } }),
    compared({
      ...speed,
      name: 'drained and published, an old snapshot held',
      ...withHeld('perSecond'),
      target: { atLeast: 0.95 },
    }),
    compared({ ...cpu, against: 'SELECT, discarded', ...against('discard', 'cpuMicrosPerRow') }),
    compared({ ...cpu, against: 'an XADD a row', ...against('rowwise', 'cpuMicrosPerRow') }),
    compared({ ...cpu, name: 'CPU a row, an old snapshot held', ...withHeld('cpuMicrosPerRow') }),
  ];
  return { rows, raw: { chunkRows, ...size, measured, heldSize, snapshot } };
}

interface DrainsOptions<V extends Variant> {
  variants: readonly V[];
  rounds: number;
  /** of `chunkRows` rows, in each round of a variant */
  chunks: number;
  folder: string;
  say: (text: string) => void;
}

export async function measureDrains<V extends Variant>(options: DrainsOptions<V>): Promise<Record<V, Cost[]>> {
  const { variants, rounds, chunks, folder, say } = options;
  await using stack = new AsyncDisposableStack();
  const side = await Side.start(folder, stack);

  async function run(variant: V): Promise<Cost> {
    await side.worker.ask({ ask: 'catch up' });
    const costs: Cost[] = [];
    for (let i = 0; i < chunks; i++) costs.push(await side.carry(variant));
    const mean = (figure: (cost: Cost) => number) => costs.reduce((sum, cost) => sum + figure(cost), 0) / chunks;
    return { perSecond: 1 / mean((cost) => 1 / cost.perSecond), cpuMicrosPerRow: mean((cost) => cost.cpuMicrosPerRow) };
  }
  return await inRounds({ variants, rounds, run, say });
}

interface HeldOptions {
  /** even: each server holds in as many of them */
  rounds: number;
  /** pairs of them, in each round */
  chunks: number;
  /** of one row each, before them: what an old snapshot keeps of these is in the way */
  smallDrains: number;
  folder: string;
  say: (text: string) => void;
}

/** What chunks cost with an old snapshot and without; the i-th of both make a pair. */
async function measureHeld(options: HeldOptions): Promise<{ held: Cost[]; none: Cost[] }> {
  const { rounds, chunks, smallDrains, folder, say } = options;
  await using stack = new AsyncDisposableStack();
  const sides = [await Side.start(join(folder, 'one'), stack), await Side.start(join(folder, 'two'), stack)] as const;
  const measured: { held: Cost[]; none: Cost[] } = { held: [], none: [] };
  // the first one warms up
  for (let round = -1; round < rounds; round++) {
    const [held, none] = round % 2 === 0 ? sides : ([sides[1], sides[0]] as const);
    for (const side of sides) await side.worker.ask({ ask: 'catch up' });
    await held.client.query('begin isolation level repeatable read; select pg_current_xact_id()');
    for (const side of sides) await side.drainSmall(smallDrains);
    for (let i = 0; i < chunks; i++) {
      const cost = new Map<Side, Cost>();
      for (const side of i % 2 === 0 ? [held, none] : [none, held]) cost.set(side, await side.carry('plank'));
      if (round < 0) continue;
      measured.held.push(cost.get(held)!);
      measured.none.push(cost.get(none)!);
    }
    await held.client.query('rollback');
  }
  const { median, low, high } = ratio(
    measured.held.map(({ perSecond }) => perSecond),
    measured.none.map(({ perSecond }) => perSecond),
  );
  say(`  with an old snapshot held ${median.toFixed(2)} (${low.toFixed(2)}–${high.toFixed(2)}) of the rows a second`);
  return measured;
}

/** A Postgres and a Redis, somebody who writes, and the process that carries what is written from one to the other. */
class Side {
  readonly worker: BenchChild<DrainQuestion, Carried>;
  /** for what nobody measures, beside the writer */
  readonly client: Client;
  readonly #writer: Client;
  readonly #pids: readonly number[];

  private constructor(
    worker: BenchChild<DrainQuestion, Carried>,
    clients: { client: Client; writer: Client },
    pids: readonly number[],
  ) {
    this.worker = worker;
    this.client = clients.client;
    this.#writer = clients.writer;
    this.#pids = pids;
  }

  /** It is stopped with the stack. */
  static async start(folder: string, stack: AsyncDisposableStack): Promise<Side> {
    requireProc();
    const databaseUrl = await benchPostgres(folder, stack);
    const redis = await startRedis({ dir: join(folder, 'redis') });
    stack.defer(() => redis.stop());
    await migrate(databaseUrl);
    const [client, writer] = [new Client(databaseUrl), new Client(databaseUrl)];
    for (const one of [client, writer]) {
      await one.connect();
      stack.defer(() => one.end());
    }
    await writer.query(`
      create table drained (id bigint generated always as identity primary key, name text, value double precision, at timestamptz default now());
      select plank.attach('drained')`);
    await writer.query('set synchronous_commit = off');
    const worker = await BenchChild.start<DrainQuestion, Carried>('drain-worker.ts', [databaseUrl, redis.url]);
    stack.defer(() => worker.stop());
    const backends = await client.query<{ pid: number }>(
      `select pid from pg_stat_activity where application_name in ('plank listener', 'bench')`,
    );
    return new Side(worker, { client, writer }, [worker.pid, redis.pid, ...backends.rows.map(({ pid }) => pid)]);
  }

  /** Writes a chunk, and says what it costs to carry it. */
  async carry(ask: Variant): Promise<Cost> {
    await write(this.#writer, chunkRows);
    const before = cpuMicros(this.#pids);
    const { ms } = await this.worker.ask({ ask, rows: chunkRows });
    return {
      perSecond: (chunkRows * 1_000) / ms,
      cpuMicrosPerRow: (cpuMicros(this.#pids) - before) / chunkRows,
    };
  }

  async drainSmall(count: number): Promise<void> {
    for (let i = 0; i < count; i++) {
      await write(this.#writer, 1);
      await this.worker.ask({ ask: 'plank', rows: 1 });
    }
  }
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
