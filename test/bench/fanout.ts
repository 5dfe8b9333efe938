// What a delivery costs where one change goes to all (b1), and where ten go out together (b2): CPU µs of everything between the log
// and the sockets, against
//
//   the C loop     one write() a socket: the floor,
//   raw writes     the same in Node, of a frame made once,
//   the ws loop    `ws.send(text)` for each client and change,
//   Socket.IO      with its Redis adapter.

import {
  Contestant,
  type Load,
  startLoop,
  startPlank,
  startRaw,
  startSocketIo,
  startWsLoop,
  total,
} from './contestants.ts';
import { requireProc } from './cpu.ts';
import { type BenchOptions, type BenchResult, compared, type Row, short, type Target } from './report.ts';
import { inRounds } from './rounds.ts';
import { median } from './stats.ts';

type Variant = 'plank' | 'loop' | 'raw' | 'ws' | 'socketIo';

const names: Record<Exclude<Variant, 'plank'>, string> = {
  loop: 'C loop',
  raw: 'raw writes',
  ws: 'ws loop',
  socketIo: 'Socket.IO',
};

interface Case {
  id: string;
  name: string;
  clients: number;
  load: Load;
  targets: Partial<Record<Variant, Target>>;
}

const single: Case['targets'] = { raw: { atMost: 1 / 0.9 }, socketIo: { atMost: 1 / 1.5 } };

/** Clients only come. */
const cases: Case[] = [
  {
    id: 'b1',
    name: 'a change to 1,000 sockets',
    clients: 1_000,
    load: { flushes: 60, everyMs: 25, changes: 1 },
    targets: single,
  },
  {
    id: 'b2',
    name: '10 changes to 1,000 sockets',
    clients: 1_000,
    load: { flushes: 10, everyMs: 150, changes: 10 },
    targets: { ws: { atMost: 1 / 5 }, socketIo: { atMost: 1 / 8 } },
  },
  {
    id: 'b1',
    name: 'a change to 5,000 sockets',
    clients: 5_000,
    load: { flushes: 12, everyMs: 125, changes: 1 },
    targets: single,
  },
];

export async function fanout({ quick, folder, say }: BenchOptions): Promise<BenchResult> {
  requireProc();
  await using stack = new AsyncDisposableStack();
  const loop = await startLoop(stack, folder);
  const servers = {
    plank: await startPlank(stack, { gateways: 1, folder }),
    ...(loop && { loop }),
    raw: await startRaw(stack),
    ws: await startWsLoop(stack),
    socketIo: await startSocketIo(stack, folder),
  };
  const variants = Object.keys(servers) as Variant[];
  const contestants = new Map<Variant, Contestant>();
  for (const variant of variants) {
    const contestant = await Contestant.enter(servers[variant]!, stack, folder);
    await contestant.warmUp(quick ? 200 : 2_000);
    contestants.set(variant, contestant);
  }
  const rows: Row[] = [];
  const raw: object[] = [];
  let admitted = 1;
  for (const { id, name, clients, load, targets } of cases) {
    const more = Array.from({ length: clients - admitted }, () => []);
    for (const contestant of contestants.values()) await contestant.admit(more, clients);
    admitted = clients;
    const costs = await inRounds({
      variants,
      rounds: quick ? 2 : 7,
      warmUps: quick ? 1 : 2,
      run: (variant) =>
        contestants.get(variant)!.measure(quick ? { ...load, flushes: Math.ceil(load.flushes / 3) } : load),
      say,
    });
    const totals = Object.fromEntries(variants.map((variant) => [variant, costs[variant].map(total)])) as Record<
      Variant,
      number[]
    >;
    say(`  ${name}: ${variants.map((variant) => `${variant} ${short(median(totals[variant]))}`).join(', ')} µs`);
    for (const variant of variants) {
      if (variant === 'plank') continue;
      const target = targets[variant];
      rows.push(
        compared({
          id,
          name,
          unit: 'µs a delivery',
          measured: totals.plank,
          against: names[variant],
          baseline: totals[variant],
          ...(target && { target }),
        }),
      );
    }
    raw.push({ id, name, clients, load, costs });
  }
  return { rows, raw: { cases: raw } };
}
