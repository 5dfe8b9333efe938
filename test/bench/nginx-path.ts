// What nginx in front costs (g): a delivery through the project's nginx.conf against a direct one, with the CPU of nginx's workers,
// for Plank and for raw writes. A relay that wrote in more pieces would pay more for it.

import { join } from 'node:path';
import { startNginx } from '#deploy/local/nginx.ts';
import { Contestant, type Load, type Server, startPlank, startRaw, total } from './contestants.ts';
import { requireProc, withChildren } from './cpu.ts';
import { type BenchOptions, type BenchResult, compared, short } from './report.ts';
import { inRounds } from './rounds.ts';
import { median } from './stats.ts';

const clients = 1_000;
const load: Load = { flushes: 40, everyMs: 40, changes: 1 };

export async function nginxPath({ quick, folder, say }: BenchOptions): Promise<BenchResult> {
  requireProc();
  await using stack = new AsyncDisposableStack();
  // a server each: a change goes to all who are there
  const servers = {
    plank: await startPlank(stack, { gateways: 1, folder: join(folder, 'direct') }),
    plankProxied: await proxied(await startPlank(stack, { gateways: 1, folder: join(folder, 'proxied') }), stack),
    raw: await startRaw(stack),
    rawProxied: await proxied(await startRaw(stack), stack),
  };
  const variants = Object.keys(servers) as (keyof typeof servers)[];
  const contestants = new Map<string, Contestant>();
  for (const variant of variants) {
    const contestant = await Contestant.enter(servers[variant], stack, folder);
    await contestant.admit(
      Array.from({ length: clients }, () => []),
      clients,
    );
    contestants.set(variant, contestant);
  }
  const costs = await inRounds({
    variants,
    rounds: quick ? 2 : 7,
    warmUps: quick ? 1 : 2,
    run: (variant) => contestants.get(variant)!.measure(quick ? { ...load, flushes: 15 } : load),
    say,
  });
  const totals = (variant: keyof typeof servers) => costs[variant].map(total);
  say(`  ${variants.map((variant) => `${variant} ${short(median(totals(variant)))}`).join(', ')} µs`);
  const times = (proxied: number[], direct: number[]) => proxied.map((cost, i) => cost / direct[i]!);
  const rows = [
    compared({
      id: 'g',
      name: 'through nginx',
      unit: 'µs a delivery',
      measured: totals('plankProxied'),
      against: 'direct',
      baseline: totals('plank'),
    }),
    compared({
      id: 'g',
      name: 'through nginx ÷ direct',
      unit: 'times',
      measured: times(totals('plankProxied'), totals('plank')),
      against: 'raw writes',
      baseline: times(totals('rawProxied'), totals('raw')),
      target: { atMost: 1.1 },
    }),
  ];
  return { rows, raw: { clients, load, costs } };
}

async function proxied(server: Server, stack: AsyncDisposableStack): Promise<Server> {
  const nginx = await startNginx({ upstreams: [`127.0.0.1:${server.port}`] });
  stack.defer(() => nginx.stop());
  return { ...server, port: nginx.port, pids: () => ({ ...server.pids(), nginx: withChildren(nginx.pid) }) };
}
