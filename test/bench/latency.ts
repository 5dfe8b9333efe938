// From commit to client at 10, 100, 1,000 and 3,000 transactions a second, 200 sockets each:
//
//   plank     listener, Redis and a gateway, processes of their own
//   single    one process that LISTENs for whole rows and writes them to its sockets
//   socketio  Socket.IO with its Redis adapter, fed in the same way
//
// Latency is from the moment when a transaction was to begin, which it carries, to its arrival at a client: a relay or a database that
// falls behind shows as latency. What is offered is more than some of them can carry at the highest rates: then their latency grows with
// the length of a round, and is a lower bound. All of a round is waited for, and must be complete, once each and in order.

import { Cluster } from '#deploy/local/cluster.ts';
import { admin } from '../support/servers/admin.ts';
import { BenchChild } from './child.ts';
import type { Received, ReceiverQuestion } from './latency-receiver.ts';
import { OpenLoop } from './open-loop.ts';
import { lines } from './plot.ts';
import { benchPostgres } from './postgres.ts';
import { alone, type BenchOptions, type BenchResult, compared, type Row, type Target } from './report.ts';
import { inRounds, VoidRound } from './rounds.ts';
import { median } from './stats.ts';

const relays = ['plank', 'single', 'socketio'] as const;
type Relay = (typeof relays)[number];

const names: Record<Relay, string> = { plank: 'Plank', single: 'one process', socketio: 'Socket.IO' };
const table = (relay: Relay) => `latency_${relay}`;
const sockets = 200;
const sampleEvery = 20;
/** a generator that is busier than this measures itself */
const maxBusy = 0.85;
const resultDeadlineMs = 50_000;

interface Step {
  rate: number;
  writers: number;
  rounds: number;
  seconds: number;
  /** at the start, of the seconds: not measured */
  leadInSeconds: number;
  p50?: Target;
  p99?: Target;
}

const steps: Step[] = [
  // short rounds, and the more of them: what else the machine does changes from one second to the next
  { rate: 10, writers: 1, rounds: 17, seconds: 3.3, leadInSeconds: 0.3, p50: { atMost: 2 } },
  { rate: 100, writers: 1, rounds: 17, seconds: 2.3, leadInSeconds: 0.3, p50: { atMost: 2 } },
  { rate: 1_000, writers: 8, rounds: 9, seconds: 2, leadInSeconds: 0.5 },
  { rate: 3_000, writers: 8, rounds: 9, seconds: 3, leadInSeconds: 0.5, p99: { atMost: 0.2 } },
];

const schema = `
  ${relays
    .map(
      (relay) =>
        `create table ${table(relay)} (id bigint generated always as identity primary key, stamp text, note text);`,
    )
    .join('\n')}
  create function latency_notify() returns trigger language plpgsql as $$
  begin
    perform pg_notify(tg_argv[0], json_build_object('table', tg_table_name, 'action', tg_op, 'id', new.id, 'data', row_to_json(new))::text);
    return null;
  end $$;
  create trigger notify after insert on ${table('single')} for each row execute function latency_notify('single');
  create trigger notify after insert on ${table('socketio')} for each row execute function latency_notify('socketio');
  select plank.attach('${table('plank')}');`;

interface Measured extends Omit<Received, 'problems'> {
  /** how long the writers took, of the time that they were to take */
  stretched: number;
  /** of the gateway's event loop, in ms */
  loopP99Ms: number;
}

export async function latency({ quick, folder, say }: BenchOptions): Promise<BenchResult> {
  await using stack = new AsyncDisposableStack();
  const databaseUrl = await benchPostgres(folder, stack);
  // pings would be counted
  const env = { PING_INTERVAL_MS: '86400000' };
  const cluster = await Cluster.start({ gateways: 1, balanced: false, folder, databaseUrl, env });
  stack.defer(() => cluster.stop());
  await admin(databaseUrl, schema);
  const gateway = cluster.gateways[0]!;
  const receiver = await startReceiver(cluster, stack);

  const rows: Row[] = [];
  const raw: object[] = [];
  const measuredAt = new Map<number, Record<Relay, Measured[]>>();
  for (const step of quick ? steps.map((step) => ({ ...step, seconds: Math.min(1, step.seconds) })) : steps) {
    const load = await OpenLoop.connect(databaseUrl, step.writers);
    try {
      const run = (relay: Relay) => round(relay, step, { load, receiver, gatewayUrl: gateway.url });
      const measured = await inRounds({ variants: relays, rounds: quick ? 1 : step.rounds, run, say });
      measuredAt.set(step.rate, measured);
      raw.push({ ...step, measured });
      rows.push(...rowsOf(step, measured));
      say(
        `  ${step.rate.toLocaleString('en')} tx/s: ${relays.map((relay) => words(relay, measured[relay])).join('; ')}`,
      );
    } finally {
      await load.stop();
    }
  }
  rows.push(...loopRow(measuredAt));
  return { rows, raw: { sockets, steps: raw }, plots: { latency: plot(measuredAt) } };
}

type Receiver = BenchChild<ReceiverQuestion, Received>;

async function startReceiver(cluster: Cluster, stack: AsyncDisposableStack): Promise<Receiver> {
  const start = async (program: string, ...args: string[]) => {
    const child = await BenchChild.start<never, never>(program, [cluster.databaseUrl, ...args]);
    stack.defer(() => child.stop());
    return child.port;
  };
  const single = await start('baselines/relay.ts', 'single');
  const socketio = await start('baselines/socket-io-relay.ts', 'socketio', cluster.redisUrl);
  const receiver = await BenchChild.start<ReceiverQuestion, Received>('latency-receiver.ts');
  stack.defer(() => receiver.stop());
  const connect = (relay: Relay, url: string, greeting?: [string, string]) =>
    receiver.ask({ ask: 'connect', relay, url, sockets, sampleEvery, ...(greeting && { greeting }) });
  await connect('plank', `${cluster.webSocketUrl}?tables=${table('plank')}`);
  await connect('single', `ws://127.0.0.1:${single}/`);
  await connect('socketio', `ws://127.0.0.1:${socketio}/socket.io/?EIO=4&transport=websocket`, ['40', '40{']);
  return receiver;
}

async function round(
  relay: Relay,
  { rate, seconds, leadInSeconds, writers }: Step,
  { load, receiver, gatewayUrl }: { load: OpenLoop; receiver: Receiver; gatewayUrl: string },
): Promise<Measured> {
  const work = { table: table(relay), rate, seconds };
  const leadIn = Math.round((rate * leadInSeconds) / writers);
  await receiver.ask({ ask: 'expect', relay, perWriter: load.shares(work), leadIn });
  // the histogram of the event loop begins anew when it is read
  await loopP99Ms(gatewayUrl);
  const before = process.cpuUsage();
  const { ms } = await load.run(work);
  const { user, system } = process.cpuUsage(before);
  const { problems, ...received } = await receiver.ask({ ask: 'result', deadlineMs: resultDeadlineMs });
  const loop = await loopP99Ms(gatewayUrl);
  const busy = Math.max(received.busy, (user + system) / 1_000 / ms);
  if (problems.length > 0) throw new Error(`${names[relay]} at ${rate} tx/s: ${problems.join(', ')}`);
  if (busy > maxBusy)
    throw new VoidRound(`${names[relay]} at ${rate} tx/s, the generator was ${Math.round(busy * 100)} % busy`);
  return { ...received, busy, stretched: ms / (seconds * 1_000), loopP99Ms: loop };
}

async function loopP99Ms(gatewayUrl: string): Promise<number> {
  const metrics = await (await fetch(`${gatewayUrl}/metrics`, { signal: AbortSignal.timeout(10_000) })).text();
  return Number(/^plank_event_loop_lag_p99_seconds\S* (\S+)$/m.exec(metrics)?.[1]) * 1_000;
}

function rowsOf(step: Step, measured: Record<Relay, Measured[]>): Row[] {
  const of = (relay: Relay, which: 'p50Ms' | 'p99Ms') => measured[relay].map((one) => one[which]);
  return (['p50', 'p99'] as const).flatMap((which) =>
    (['single', 'socketio'] as const).map((other) => {
      const target = other === 'single' ? step[which] : undefined;
      return compared({
        id: 'a',
        name: `${which}, ${step.rate.toLocaleString('en')} tx/s to ${sockets} sockets`,
        unit: 'ms',
        measured: of('plank', `${which}Ms`),
        against: names[other],
        baseline: of(other, `${which}Ms`),
        ...(target && { target }),
      });
    }),
  );
}

/** Of the gateway, at the highest rate at which the writers kept their time. */
function loopRow(measuredAt: ReadonlyMap<number, Record<Relay, Measured[]>>): Row[] {
  const holding = [...measuredAt].filter(([, { plank }]) => median(plank.map(({ stretched }) => stretched)) < 1.1);
  const [rate, measured] = holding.at(-1) ?? [];
  if (!measured) return [];
  return [
    alone({
      id: 'a',
      name: `p99 of the gateway's event loop, ${rate!.toLocaleString('en')} tx/s`,
      unit: 'ms',
      measured: measured.plank.map((one) => one.loopP99Ms),
      target: { atMost: 20 },
    }),
  ];
}

function words(relay: Relay, measured: readonly Measured[]): string {
  const of = (figure: (one: Measured) => number) => median(measured.map(figure));
  const ms = (value: number) => value.toFixed(value < 10 ? 2 : 0);
  return `${names[relay]} ${ms(of((one) => one.p50Ms))} / ${ms(of((one) => one.p99Ms))} / ${ms(of((one) => one.p999Ms))} ms`;
}

function plot(measuredAt: ReadonlyMap<number, Record<Relay, Measured[]>>): string {
  const series = relays.flatMap((relay) =>
    (['p50Ms', 'p99Ms'] as const).map((which) => ({
      name: `${names[relay]}, ${which.slice(0, 3)}`,
      color: relays.indexOf(relay),
      dashed: which === 'p99Ms',
      points: [...measuredAt].map(([rate, measured]) => ({
        x: rate,
        y: median(measured[relay].map((one) => one[which])),
      })),
    })),
  );
  const title = `Commit to client, ${sockets} sockets`;
  return lines({ title, x: 'transactions a second', y: 'ms', series });
}
