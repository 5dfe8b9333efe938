// What it costs to have more replicas (f1): the same clients on one, two and four gateways, each of which reads the whole log. CPU of
// all gateways and Redis for each delivery, and of Redis for each change.

import { join } from 'node:path';
import { startPostgres } from '#deploy/local/postgres.ts';
import { admin } from '../support/servers/admin.ts';
import { Contestant, type Load, startPlank, total } from './contestants.ts';
import { requireProc } from './cpu.ts';
import { type BenchOptions, type BenchResult, compared, short } from './report.ts';
import { inRounds } from './rounds.ts';
import { median } from './stats.ts';

const clients = 4_000;
const load: Load = { flushes: 10, everyMs: 150, changes: 1 };

const counts = { one: 1, two: 2, four: 4 } as const;
type Variant = keyof typeof counts;
const variants = Object.keys(counts) as Variant[];

export async function replicas({ quick, folder, say }: BenchOptions): Promise<BenchResult> {
  requireProc();
  await using stack = new AsyncDisposableStack();
  // a log for each: gateways that do not take part must not read along
  const postgres = await startPostgres({ dataDir: join(folder, 'postgres'), fresh: true });
  stack.defer(() => postgres.stop());
  const contestants = new Map<Variant, Contestant>();
  for (const variant of variants) {
    await admin(postgres.url, `create database ${variant}`);
    const databaseUrl = new URL(postgres.url);
    databaseUrl.pathname = `/${variant}`;
    const gateways = counts[variant];
    const server = await startPlank(stack, { gateways, folder: join(folder, variant), databaseUrl: databaseUrl.href });
    const contestant = await Contestant.enter(server, stack, folder);
    const ports = server.cluster.gateways.map(({ url }) => Number(new URL(url).port));
    for (const port of ports)
      await contestant.admit(
        Array.from({ length: clients / gateways }, () => []),
        clients,
        port,
      );
    contestants.set(variant, contestant);
  }
  const costs = await inRounds({
    variants,
    rounds: quick ? 2 : 7,
    warmUps: quick ? 1 : 2,
    run: (variant) => contestants.get(variant)!.measure(quick ? { ...load, flushes: 4 } : load),
    say,
  });
  const totals = (variant: Variant) => costs[variant].map(total);
  const redis = (variant: Variant) => costs[variant].map((cost) => cost['redis']! * clients);
  say(`  ${variants.map((variant) => `${counts[variant]}: ${short(median(totals(variant)))}`).join(', ')} µs`);
  const delivery = { id: 'f1', unit: 'µs a delivery', against: 'one', baseline: totals('one') };
  const change = { id: 'f1', unit: 'µs of Redis a change', against: 'one', baseline: redis('one') };
  const rows = [
    compared({ ...delivery, name: 'two replicas', measured: totals('two') }),
    compared({ ...delivery, name: 'four replicas', measured: totals('four'), target: { atMost: 1.15 } }),
    compared({ ...change, name: 'two replicas', measured: redis('two') }),
    compared({ ...change, name: 'four replicas', measured: redis('four') }),
  ];
  return { rows, raw: { clients, load, costs } };
}
