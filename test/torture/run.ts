// Owns one torture run: rounds of load, faults and DDL. After each round every client must come to show the rows of SELECT. At the end,
// the verdict covers every delivery. What must stay true: a run that was not checked in full does not pass.

import { setTimeout as delay } from 'node:timers/promises';
import { until } from '../support/wait.ts';
import { someAsk, someAsks } from './asks.ts';
import { EventsClient, FramesClient, PlainClient, SdkClient } from './clients.ts';
import { deeds } from './ddl.ts';
import { faults } from './faults.ts';
import { insist } from './insist.ts';
import { Observed } from './observed.ts';
import { Random } from './random.ts';
import { watched } from './schema.ts';
import { type Entry, judge } from './truth.ts';
import { startWorld, type World } from './world.ts';
import { Writers } from './writers.ts';

export interface TortureOptions {
  seed: number;
  seconds: number;
  /** the folder of another PostgreSQL's programs */
  programs?: string;
  /** transactions a second, of each of eight writers */
  perSecond?: number;
  say: (line: string) => void;
}

export interface TortureResult {
  problems: string[];
  faults: number;
  commits: number;
  deliveries: number;
  /** the longest time from the last fault's end until every client showed what SELECT shows */
  slowestMs: number;
}

const roundMs = 12_000;
/** after the last fault has healed, no client lags longer … */
const quietMs = 5_000;
/** … and later clients are waited for, to tell late from never */
const patienceMs = 30_000;

export async function torture(options: TortureOptions): Promise<TortureResult> {
  const { say } = options;
  const random = new Random(options.seed);
  await using stack = new AsyncDisposableStack();
  const world = await startWorld(stack, options.programs);
  const observed = new Observed();
  const plain = meet(world, observed, random);
  stack.defer(() => {
    for (const client of world.clients) client.stop();
  });
  // a plain-mode client does not get changes from before it connected
  await until('plain-mode clients are connected', () => plain.every((client) => client.isOpen), 10_000);
  const writers = new Writers({
    databaseUrl: world.databaseUrl,
    random: random.of('writers'),
    perSecond: options.perSecond ?? 20,
  });
  stack.defer(() => writers.pause());
  const problems: string[] = [];
  let inflicted = 0;
  let slowestMs = 0;
  const end = performance.now() + options.seconds * 1_000;
  for (let round = 1; performance.now() < end && problems.length === 0; round++) {
    const dice = random.of(`round ${round}`);
    writers.start(8);
    const names = await chaos(world, observed, dice);
    inflicted += names.length;
    await writers.pause();
    const tookMs = await settle(world, problems);
    slowestMs = Math.max(slowestMs, tookMs);
    problems.push(...observed.problems, ...writers.problems);
    const { commits, rollbacks, outages } = writers;
    say(
      `round ${round}: ${names.join(', ')}; all agree after ${(tookMs / 1_000).toFixed(1)} s (${commits} commits, ${rollbacks} rollbacks, ${outages} outages, ${observed.deliveries} deliveries, ${observed.resyncs} resyncs)`,
    );
  }
  const ledger = await readLedger(world.databaseUrl);
  problems.push(...judge(ledger, observed.bySeq, plain));
  if (observed.bySeq.size === 0 || ledger.length === 0) problems.push('nothing was delivered: this run says nothing');
  problems.push(...(await leftBehind(world)));
  if (problems.length > 0)
    for (const node of [...world.cluster.listeners, ...world.cluster.gateways])
      say(`${node.name}:\n${node.logTail(12)}`);
  return { problems, faults: inflicted, commits: writers.commits, deliveries: observed.deliveries, slowestMs };
}

/** Connects everyone. */
function meet(world: World, observed: Observed, random: Random): PlainClient[] {
  const ws = world.cluster.webSocketUrl;
  const plain = Array.from({ length: 16 }, (_, i) =>
    new PlainClient(ws, `plain ${i}`, observed, random.of(`plain ${i}`)).start(),
  );
  const name = (kind: string, i: number) => `${kind} ${i}`;
  world.clients.push(
    ...plain,
    ...Array.from({ length: 20 }, (_, i) => {
      const own = random.of(name('frames', i));
      return new FramesClient(ws, name('frames', i), someAsks(own, own.between(1, 3)), observed, own).start();
    }),
    ...Array.from({ length: 5 }, (_, i) => {
      const own = random.of(name('events', i));
      return new EventsClient(world.cluster.url, name('events', i), someAsk(own), observed, own).start();
    }),
    ...Array.from({ length: 5 }, (_, i) => {
      const own = random.of(name('sdk', i));
      return new SdkClient(ws, name('sdk', i), someAsks(own, 3), observed);
    }),
  );
  return plain;
}

/** The faults and deeds of one round, up to three at a time. Resolves with their names when all are healed. */
async function chaos(world: World, observed: Observed, random: Random): Promise<string[]> {
  const end = performance.now() + roundMs;
  const names: string[] = [];
  const taken = new Set<string>();
  const inflict = async (own: Random) => {
    while (performance.now() < end) {
      await delay(own.between(300, 2_500));
      const name = own.pick(Object.keys(faults));
      const part = own.pick(faults[name]!.of(world));
      if (taken.has(part)) continue;
      taken.add(part);
      names.push(name);
      const heal = await faults[name]!.inflict(world, part, own);
      await delay(own.between(200, 5_000));
      await heal();
      taken.delete(part);
    }
  };
  const alter = async (own: Random) => {
    await delay(own.between(0, 3_000));
    const deed = own.pick(deeds);
    names.push(deed.name);
    await deed.run({ databaseUrl: world.databaseUrl, random: own, observed });
  };
  // a lane is one fault after the other: two lanes overlap
  await Promise.all([inflict(random.of('a')), inflict(random.of('b')), alter(random.of('ddl'))]);
  return names;
}

/** Waits until every client shows the rows of SELECT. Resolves with how long that took, and adds clients that do not to the problems. */
async function settle(world: World, problems: string[]): Promise<number> {
  const started = performance.now();
  const truth = new Map<string, Map<string, number>>();
  for (const client of world.clients) {
    for (const { ask } of client.pictures()) {
      if (truth.has(ask.sql)) continue;
      const rows = await insist(world.databaseUrl, ask.sql);
      truth.set(ask.sql, new Map(rows.map((row) => [row['key']!, Number(row['ver'])])));
    }
  }
  let differing: string[] = [];
  for (;;) {
    differing = world.clients.flatMap((client) =>
      client.pictures().flatMap(({ who, ask, rows }) => differences(who, rows, truth.get(ask.sql)!)),
    );
    const tookMs = performance.now() - started;
    if (differing.length === 0) {
      if (tookMs > quietMs) problems.push(`it took ${Math.round(tookMs)} ms after the last fault until all agreed`);
      return tookMs;
    }
    if (tookMs > patienceMs) {
      problems.push(...differing.slice(0, 10));
      return tookMs;
    }
    await delay(50);
  }
}

function differences(who: string, rows: ReadonlyMap<string, number>, truth: ReadonlyMap<string, number>): string[] {
  const wrong = [...truth].filter(([key, ver]) => rows.get(key) !== ver);
  const extra = [...rows].filter(([key]) => !truth.has(key));
  if (wrong.length === 0 && extra.length === 0) return [];
  const [key, ver] = wrong[0] ?? extra[0]!;
  return [
    `${who}: ${wrong.length} of ${truth.size} rows are missing or old, ${extra.length} should not be there; ${key} is ${rows.get(key) ?? 'not there'}, SELECT says ${truth.get(key) ?? 'not there'} (${ver})`,
  ];
}

async function readLedger(databaseUrl: string): Promise<Entry[]> {
  const tables = watched.map((name) => `'${name}'`).join(', ');
  const rows = await insist(
    databaseUrl,
    `select id, tx, tbl, action, key, was from ledger where tbl in (${tables}) order by id`,
  );
  return rows.map(({ id, tx, tbl, action, key, was }) => ({
    id: Number(id),
    tx: Number(tx),
    tbl: tbl!,
    action: action!,
    key: key ?? null,
    was: was === null || was === undefined ? null : Number(was),
  }));
}

/** What gateways still hold after all clients have gone. */
async function leftBehind(world: World): Promise<string[]> {
  for (const client of world.clients) client.stop();
  const names = ['plank_connections', 'plank_subscriptions', 'plank_channels', 'plank_catching_up'];
  const held = async () => {
    const found: string[] = [];
    for (const { name: node, url } of world.cluster.gateways) {
      const text = await (await fetch(`${url}/metrics`, { signal: AbortSignal.timeout(5_000) })).text();
      for (const line of text.split('\n')) {
        const [series = '', value] = line.split(' ');
        if (names.includes(series.split('{')[0]!) && Number(value) !== 0) found.push(`${node} still has ${line}`);
      }
    }
    return found;
  };
  const end = performance.now() + 10_000;
  for (;;) {
    const found = await held();
    if (found.length === 0 || performance.now() > end) return found;
    await delay(200);
  }
}
