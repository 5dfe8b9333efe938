// What a delivery costs where changes concern few (b3): 1,000 channels with 10 subscribers each, two channels a client. A flush is a
// change in each of 100 of them. Against raw writes, the ws loop and Socket.IO's rooms, which know the members of each channel.

import { Contestant, type Load, startPlank, startRaw, startSocketIo, startWsLoop, total } from './contestants.ts';
import { requireProc } from './cpu.ts';
import { rooms } from './publishing.ts';
import { type BenchOptions, type BenchResult, compared, short } from './report.ts';
import { inRounds } from './rounds.ts';
import { median } from './stats.ts';

const subscribers = 10;
const load: Load = { flushes: 20, everyMs: 75, changes: 100 };

const against = { raw: 'raw writes', ws: 'ws loop', socketIo: 'Socket.IO' } as const;

/** Each client has its number's channel and another one: five times another for each. */
const clients = Array.from({ length: (rooms * subscribers) / 2 }, (_, i) => [
  i % rooms,
  (i + 1 + 137 * Math.floor(i / rooms)) % rooms,
]);

export async function channels({ quick, folder, say }: BenchOptions): Promise<BenchResult> {
  requireProc();
  await using stack = new AsyncDisposableStack();
  const servers = {
    plank: await startPlank(stack, { gateways: 1, folder }),
    raw: await startRaw(stack),
    ws: await startWsLoop(stack),
    socketIo: await startSocketIo(stack, folder),
  };
  const variants = Object.keys(servers) as (keyof typeof servers)[];
  const contestants = new Map<string, Contestant>();
  for (const variant of variants) {
    const contestant = await Contestant.enter(servers[variant], stack, folder);
    await contestant.admit(clients, subscribers);
    contestants.set(variant, contestant);
  }
  const costs = await inRounds({
    variants,
    rounds: quick ? 2 : 7,
    warmUps: quick ? 1 : 2,
    run: (variant) => contestants.get(variant)!.measure(quick ? { ...load, flushes: 7 } : load),
    say,
  });
  const totals = (variant: keyof typeof servers) => costs[variant].map(total);
  say(`  ${variants.map((variant) => `${variant} ${short(median(totals(variant)))}`).join(', ')} µs`);
  const rows = (['raw', 'ws', 'socketIo'] as const).map((variant) =>
    compared({
      id: 'b3',
      name: `${rooms.toLocaleString('en')} channels of ${subscribers}`,
      unit: 'µs a delivery',
      measured: totals('plank'),
      against: against[variant],
      baseline: totals(variant),
      ...(variant === 'raw' && { target: { atMost: 1 / 0.8 } }),
    }),
  );
  return { rows, raw: { load, clients: clients.length, costs } };
}
