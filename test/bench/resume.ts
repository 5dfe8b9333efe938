// Everybody comes back at once: 10,000 clients that are 100 changes behind connect to one gateway, until each has got them all, to the
// byte. Beside it, what the same clients take to be accepted by `ws` alone, which is so quick that the clients are what it waits for.
// And what the storm makes of Redis and Postgres: reads of the stream and of the log must not grow with the clients.

import { execFileSync } from 'node:child_process';
import { join } from 'node:path';
import { Redis } from 'ioredis';
import { Cluster } from '#deploy/local/cluster.ts';
import { admin } from '../support/servers/admin.ts';
import { until } from '../support/wait.ts';
import { BenchChild } from './child.ts';
import { alone, type BenchOptions, type BenchResult, compared } from './report.ts';
import type { ClientsQuestion, Connected } from './resume-clients.ts';
import { inRounds } from './rounds.ts';

const changes = 100;
const few = 100;
const deadlineMs = 50_000;
const variants = ['plank', 'ws'] as const;

export async function resume({ quick, folder, say }: BenchOptions): Promise<BenchResult> {
  const clients = Math.min(quick ? 2_000 : 10_000, filesAllowed() - 500);
  await using stack = new AsyncDisposableStack();
  // what comes by itself would be counted
  const env = { PING_INTERVAL_MS: '86400000', CANARY_INTERVAL_MS: '0' };
  const cluster = await Cluster.start({
    gateways: 1,
    balanced: false,
    folder: join(folder, 'cluster'),
    fresh: true,
    env,
  });
  stack.defer(() => cluster.stop());
  const redis = new Redis(cluster.redisUrl);
  stack.defer(() => redis.disconnect());
  const since = await writeChanges(cluster);
  const crowd = await BenchChild.start<ClientsQuestion, Connected>('resume-clients.ts');
  stack.defer(() => crowd.stop());
  const ws = await BenchChild.start<never, never>('baselines/accept.ts');
  stack.defer(() => ws.stop());

  const url = `${cluster.webSocketUrl}?since=${since}`;
  const { bytes } = await crowd.ask({ ask: 'probe', url });
  const storm = async (request: { url: string; clients: number; bytes: number }) => {
    try {
      return await crowd.ask({ ask: 'connect', ...request, deadlineMs });
    } finally {
      await crowd.ask({ ask: 'disconnect' });
      await until('the gateway has seen them go', async () => (await connections(cluster)) === 0, 30_000);
    }
  };
  const run = (variant: (typeof variants)[number]) =>
    storm(variant === 'plank' ? { url, clients, bytes } : { url: `ws://127.0.0.1:${ws.port}/`, clients, bytes: 0 });
  const measured = await inRounds({ variants, rounds: quick ? 3 : 7, run, say });

  const reads = async (count: number) => {
    const before = await readsOf(redis, cluster);
    await storm({ url, clients: count, bytes });
    return (await readsOf(redis, cluster)) - before;
  };
  const readsOfFew = await reads(few);
  const readsOfMany = await reads(clients);

  const crowdName = `${clients.toLocaleString('en')} clients, ${changes} changes behind`;
  const seconds = (variant: (typeof variants)[number]) => measured[variant].map(({ ms }) => ms / 1_000);
  const figure = { id: 'e', name: `${crowdName}: all resumed`, unit: 's', measured: seconds('plank') };
  return {
    rows: [
      alone({ ...figure, target: { atMost: 15 } }),
      compared({ ...figure, against: 'accepted by ws', baseline: seconds('ws') }),
      alone({
        id: 'e',
        name: `${crowdName}: reads of Redis and Postgres more than for ${few}`,
        unit: 'reads',
        measured: [readsOfMany - readsOfFew],
        target: { atMost: 0 },
      }),
    ],
    raw: { clients, changes, bytes, measured, readsOfFew, readsOfMany },
  };
}

/** How many files, and so sockets, a process may have open. */
function filesAllowed(): number {
  const answer = execFileSync('sh', ['-c', 'ulimit -n'], { encoding: 'utf8' }).trim();
  return answer === 'unlimited' ? 1_000_000 : Number(answer);
}

/** A transaction each; returns the position before them. */
async function writeChanges(cluster: Cluster): Promise<string> {
  await admin(
    cluster.databaseUrl,
    `create table resumed (id bigint generated always as identity primary key, name text, value double precision);
     select plank.attach('resumed')`,
  );
  const before = await caughtUp(cluster);
  await admin(
    cluster.databaseUrl,
    `do $$ begin for i in 1..${changes} loop insert into resumed (name, value) values ('the name of a row', i); commit; end loop; end $$`,
  );
  await caughtUp(cluster);
  return before;
}

/** Waits until the gateway has all that was committed; its position then. */
async function caughtUp(cluster: Cluster): Promise<string> {
  const newest = async () => (await admin(cluster.databaseUrl, 'select epoch, newest from plank.extent()'))[0]!;
  await until(
    'all changes have their seq',
    async () =>
      Number((await admin(cluster.databaseUrl, 'select count(*) as n from plank.outbox'))[0]!.n) ===
      Number((await newest()).newest),
    10_000,
  );
  const { epoch, newest: seq } = await newest();
  const position = `e${epoch}.${seq}`;
  await until('the gateway has them', async () => (await health(cluster)).position === position, 10_000);
  return position;
}

/** Ranges of the stream, and reads of the log in Postgres. */
async function readsOf(redis: Redis, cluster: Cluster): Promise<number> {
  const ranges = Number(/cmdstat_xrange:calls=(\d+)/.exec(await redis.info('commandstats'))?.[1] ?? 0);
  return ranges + (await metric(cluster, 'plank_fallback_reads_total'));
}

const connections = (cluster: Cluster) => metric(cluster, 'plank_connections');

async function health(cluster: Cluster): Promise<{ position: string }> {
  return (await fetch(`${cluster.url}/health`, { signal: AbortSignal.timeout(10_000) })).json() as Promise<{
    position: string;
  }>;
}

/** The sum over its labels. */
async function metric(cluster: Cluster, name: string): Promise<number> {
  const text = await (await fetch(`${cluster.url}/metrics`, { signal: AbortSignal.timeout(10_000) })).text();
  const values = [...text.matchAll(new RegExp(`^${name}(?:\\{\\S*)? (\\S+)$`, 'gm'))];
  if (values.length === 0) throw new Error(`the gateway has no metric ${name}`);
  return values.reduce((sum, [, value]) => sum + Number(value), 0);
}
