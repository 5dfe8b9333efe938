// What an idle connection weighs (d): how much resident memory 10,000 of them add to a process, after all garbage is collected,
// against a bare socket of `net`, a bare one of `ws` and Socket.IO. Those of Plank and Socket.IO are subscribed.
//
// Resident memory without the room that V8 keeps for new objects: that depends on how fast the last ones came, up to 5 kB a connection
// here, and is no connection's. What the objects of a connection take up by themselves (`heap`) is the same to a few bytes each time.

import { existsSync, readFileSync, rmSync } from 'node:fs';
import { join } from 'node:path';
import { pathToFileURL } from 'node:url';
import { until } from '../support/wait.ts';
import { type Plank, type Server, startPlank, startRaw, startSocketIo, startWsLoop } from './contestants.ts';
import { requireProc, residentBytes } from './cpu.ts';
import { Receivers } from './generator/receivers.ts';
import { type BenchOptions, type BenchResult, compared, short } from './report.ts';
import { inRounds } from './rounds.ts';
import { median } from './stats.ts';

const allVariants = ['plank', 'plain', 'ws', 'socketIo', 'net'] as const;
type Variant = (typeof allVariants)[number];

/** before the first look: what is loaded and compiled on first use is not a connection's */
const warmUp = 500;

/** bytes */
export interface Weight {
  resident: number;
  /** of JavaScript objects */
  heap: number;
}

export interface WeighOptions<V extends Variant> extends Pick<BenchOptions, 'folder' | 'say'> {
  variants: readonly V[];
  rounds: number;
  connections: number;
}

/** Of one connection, in each round. */
export async function weighIdle<V extends Variant>(options: WeighOptions<V>): Promise<Record<V, Weight[]>> {
  requireProc();
  const { variants, rounds, connections, folder, say } = options;
  const collected = join(folder, 'collected');
  const env = {
    NODE_OPTIONS: `--import=${pathToFileURL(join(import.meta.dirname, 'gc-on-signal.ts')).href}`,
    BENCH_COLLECTED: collected,
  };
  await using stack = new AsyncDisposableStack();
  const plank = await startPlank(stack, { gateways: 1, folder, gatewayEnv: env });
  const gateway = plank.cluster.gateways[0]!;

  const weightAfterGc = async (pid: number): Promise<Weight> => {
    rmSync(collected, { force: true });
    process.kill(pid, 'SIGUSR2');
    await until('garbage is collected', () => existsSync(collected), 10_000);
    return { resident: residentBytes(pid), heap: Number(readFileSync(collected, 'utf8')) };
  };

  /** A fresh process each time. */
  const start: Record<Variant, (own: AsyncDisposableStack) => Promise<Server>> = {
    plank: () => restarted(plank),
    plain: async () => ({ ...(await restarted(plank)), protocol: undefined, messages: () => [], greetings: () => 0 }),
    ws: (own) => startWsLoop(own, env),
    socketIo: (own) => startSocketIo(own, folder, env),
    net: (own) => startRaw(own, env),
  };

  return await inRounds({
    variants,
    rounds,
    warmUps: 0,
    async run(variant) {
      await using own = new AsyncDisposableStack();
      const server = await start[variant](own);
      const pid = variant === 'plank' || variant === 'plain' ? gateway.pid : server.pids()['server']![0]!;
      const receivers = await Receivers.start(folder);
      own.defer(() => receivers.stop());
      const open = (count: number) =>
        receivers.open(
          server,
          Array.from({ length: count }, () => []),
        );
      await open(warmUp);
      const before = await weightAfterGc(pid);
      await open(connections);
      const after = await weightAfterGc(pid);
      return {
        resident: (after.resident - before.resident) / connections,
        heap: (after.heap - before.heap) / connections,
      };
    },
    say,
  });
}

export async function idle({ quick, folder, say }: BenchOptions): Promise<BenchResult> {
  const connections = quick ? 1_000 : 10_000;
  const weights = await weighIdle({ variants: allVariants, rounds: quick ? 2 : 7, connections, folder, say });
  const bytes = (variant: Variant, what: keyof Weight = 'resident') => weights[variant].map((weight) => weight[what]);
  for (const what of ['resident', 'heap'] as const)
    say(
      `  ${what}: ${allVariants.map((variant) => `${variant} ${short(median(bytes(variant, what)))}`).join(', ')} bytes`,
    );
  const figure = { id: 'd', name: 'an idle connection, plank.v1', unit: 'bytes', measured: bytes('plank') };
  const rows = [
    compared({ ...figure, against: 'ws', baseline: bytes('ws'), target: { atMost: 1.15 } }),
    compared({ ...figure, against: 'Socket.IO', baseline: bytes('socketIo'), target: { atMost: 0.5 } }),
    compared({ ...figure, against: 'net', baseline: bytes('net') }),
    compared({
      ...figure,
      name: 'an idle connection, plain',
      measured: bytes('plain'),
      against: 'ws',
      baseline: bytes('ws'),
    }),
    compared({
      ...figure,
      name: 'objects of an idle connection, plank.v1',
      measured: bytes('plank', 'heap'),
      against: 'ws',
      baseline: bytes('ws', 'heap'),
    }),
  ];
  return { rows, raw: { connections, weights } };
}

async function restarted(plank: Plank): Promise<Plank> {
  const gateway = plank.cluster.gateways[0]!;
  await gateway.stop();
  await gateway.start();
  return plank;
}
