// No change waits for the safety check, whatever the load does: writers cross the switch between ringing and polling in both
// directions, connections of the doorbell are ended, and NOTIFY is forbidden. A real listener, its fan-out and its writers in
// one process, so that one clock orders what they do.

import type { Notification } from 'pg';
import { Client } from 'pg';
import { pino } from 'pino';
import { afterEach, beforeEach, describe, expect, it } from 'vitest';
import { Listener } from '../../services/listener/listener.ts';
import { BatchReader } from '../../shared/batch.ts';
import { listenerSchema, readConfig } from '../../shared/config.ts';
import { LocalFanout } from '../../shared/fanout-local.ts';
import { createRegistry, listenerMetrics } from '../../shared/metrics.ts';
import { sleep } from '../../shared/retry.ts';
import { admin } from '../support/admin.ts';
import { createDatabase, type TestDatabase } from '../support/servers.ts';
import { until } from '../support/wait.ts';

const safetyIntervalMs = 3_000;
/** far from the safety interval, and far above what a busy machine does by itself */
const lateMs = 1_500;

/** What a writer did: one transaction that inserts one row. */
interface Commit {
  pid: number;
  begunAt: number;
  /** when the writer was told that it has committed */
  endedAt: number;
  /** when the batch with it came out of the fan-out */
  publishedAt?: number;
}

interface Span {
  from: number;
  to: number;
}

class Rig {
  readonly commits = new Map<number, Commit>();
  readonly announced = new Map<number, number>();
  readonly modes: { mode: string; at: number }[] = [];
  /** when nobody held or asked for the lock, and until when this was sure to go on */
  readonly silent: Span[] = [];
  readonly #database: TestDatabase;
  readonly #listener: Listener;
  readonly #fanout = new LocalFanout();
  readonly #metrics = listenerMetrics(createRegistry('test'));
  readonly #abort = new AbortController();
  readonly #clients: Client[] = [];
  #tail: Promise<void> | undefined;
  #marks = 0;
  #nextId = 1;

  private constructor(database: TestDatabase, env: Record<string, string>) {
    this.#database = database;
    const config = readConfig(listenerSchema, {
      DATABASE_URL: database.url,
      SAFETY_INTERVAL_MS: String(safetyIntervalMs),
      NODE_NAME: 'test',
      CANARY_INTERVAL_MS: '0',
      ...env,
    });
    const log = pino({ level: 'debug' }, { write: (line: string) => this.#logged(line) });
    this.#listener = new Listener({ config, publisher: this.#fanout, log, metrics: this.#metrics });
  }

  static async start(env: Record<string, string> = {}): Promise<Rig> {
    const database = await createDatabase();
    await admin(database.url, "create table t (id integer primary key, v text); select plank.attach('t')");
    const rig = new Rig(database, env);
    await rig.#listener.start();
    rig.#tail = rig.#follow();
    return rig;
  }

  async stop(): Promise<void> {
    this.#abort.abort();
    await Promise.all(this.#clients.map((client) => client.end()));
    await this.#listener.stop();
    await this.#fanout.stop();
    await this.#tail;
    await this.#database.drop();
  }

  get url(): string {
    return this.#database.url;
  }

  get mode(): string {
    return this.modes.at(-1)?.mode ?? 'returning';
  }

  async client(): Promise<Client> {
    const client = new Client({ connectionString: this.#database.url, application_name: 'plank test writer' });
    await client.connect();
    this.#clients.push(client);
    return client;
  }

  async metric(name: 'safetyFinds' | 'rings' | 'ringing'): Promise<number> {
    return (await this.#metrics[name].get()).values[0]!.value;
  }

  /** Counts from now on who announces something. */
  async hearAnnouncements(): Promise<void> {
    const client = await this.client();
    client.on('notification', (heard: Notification) => {
      if (heard.channel === 'mark') this.#marks++;
      else this.announced.set(heard.processId, (this.announced.get(heard.processId) ?? 0) + 1);
    });
    await client.query('listen plank');
    await client.query('listen mark');
  }

  /** Resolves when everything announced until now has been counted: notifications come in the order of commits. */
  async allAnnounced(): Promise<void> {
    const marks = this.#marks + 1;
    await admin(this.url, 'notify mark');
    await until('the mark is heard', () => this.#marks >= marks, 10_000);
  }

  /** Writes one row in a transaction of its own; with `work`, this is done in it before the commit. */
  async write(client: Client, work?: () => Promise<void>): Promise<void> {
    const id = this.#nextId++;
    const begunAt = performance.now();
    if (work) {
      await client.query('begin');
      await client.query({ name: 'write', text: 'insert into t values ($1)', values: [id] });
      await work();
      await client.query('commit');
    } else await client.query({ name: 'write', text: 'insert into t values ($1)', values: [id] });
    this.#ended(id, client, begunAt);
  }

  #ended(id: number, client: Client, begunAt: number): void {
    const { processID: pid } = client as unknown as { processID: number };
    const known = this.commits.get(id);
    this.commits.set(id, { ...known, pid, begunAt, endedAt: performance.now() });
  }

  async allPublished(deadlineMs = 2 * safetyIntervalMs): Promise<void> {
    const missing = () => [...this.commits.values()].filter((commit) => commit.publishedAt === undefined).length;
    await until('all that was committed is published', () => missing() === 0, deadlineMs);
  }

  /** ms from the commit to the publication, sorted */
  latencies(): number[] {
    return [...this.commits.values()]
      .map((commit) => Math.max(0, commit.publishedAt! - commit.endedAt))
      .sort((a, b) => a - b);
  }

  async #follow(): Promise<void> {
    let seq = 0;
    while (!this.#abort.signal.aborted) {
      for (const batch of await this.#fanout.read(seq, 1_000, this.#abort.signal)) {
        const publishedAt = performance.now();
        const reader = new BatchReader(batch);
        while (reader.next()) {
          if (seq > 0 && reader.seq !== seq + 1) throw new Error(`seq ${reader.seq} behind ${seq}`);
          seq = reader.seq;
          const id = Number(reader.buffer.toString('latin1', reader.keyStart, reader.keyEnd));
          if (reader.keyEnd <= reader.keyStart) continue;
          // the writer may learn of its commit later than everybody else
          const commit = this.commits.get(id) ?? { pid: 0, begunAt: publishedAt, endedAt: publishedAt };
          if (commit.publishedAt !== undefined) throw new Error(`row ${id} was published twice`);
          this.commits.set(id, { ...commit, publishedAt });
        }
      }
    }
  }

  #logged(line: string): void {
    const { msg, mode } = JSON.parse(line) as { msg: string; mode?: string };
    if (msg !== 'doorbell' || mode === undefined) return;
    const at = performance.now();
    const silence = this.silent.at(-1);
    if (silence && this.isSilent) silence.to = at;
    this.modes.push({ mode, at });
    if (mode === 'polling') void this.#watchForSilence().catch(() => {});
  }

  /** Polling is announced a moment before the lock is given up. */
  async #watchForSilence(): Promise<void> {
    const turn = this.modes.length;
    while (this.modes.length === turn && !this.#abort.signal.aborted) {
      const held = await admin(this.url, "select from pg_locks where locktype = 'advisory' and mode = 'ExclusiveLock'");
      if (held.length > 0) continue;
      if (this.modes.length === turn) this.silent.push({ from: performance.now(), to: Number.POSITIVE_INFINITY });
      return;
    }
  }

  /** Nobody announces anything at this moment. */
  get isSilent(): boolean {
    return this.silent.at(-1)?.to === Number.POSITIVE_INFINITY;
  }

  /** Spans of time in which all new transactions had to announce their changes. */
  get ringing(): Span[] {
    return this.modes.flatMap(({ mode, at }, i) =>
      mode === 'ringing' ? [{ from: at, to: this.modes[i + 1]?.at ?? Number.POSITIVE_INFINITY }] : [],
    );
  }
}

let rig: Rig;

async function startRig(env?: Record<string, string>): Promise<Client[]> {
  rig = await Rig.start(env);
  return Promise.all(Array.from({ length: 16 }, () => rig.client()));
}

const report = (latencies: readonly number[]) => {
  const at = (share: number) => latencies[Math.min(latencies.length - 1, Math.floor(latencies.length * share))]!;
  return `${latencies.length} commits, to publication p50 ${at(0.5).toFixed(1)}, p99 ${at(0.99).toFixed(1)}, max ${at(1).toFixed(1)} ms`;
};

/** Writes at a rate, from one connection after the other, for some time. */
async function trickle(clients: readonly Client[], perSecond: number, ms: number): Promise<void> {
  const end = performance.now() + ms;
  await Promise.all(
    clients.map(async (client) => {
      const pause = () => (Math.random() * 2 * 1_000 * clients.length) / perSecond;
      for (await sleep(pause()); performance.now() < end; await sleep(pause())) await rig.write(client);
    }),
  );
}

/** Writes as fast as it goes, until so many transactions have committed, the time is over, or it is enough. */
async function burst(clients: readonly Client[], most: number, ms: number, enough = () => false): Promise<void> {
  const end = performance.now() + ms;
  let left = most;
  await Promise.all(
    clients.map(async (client) => {
      while (left-- > 0 && performance.now() < end && !enough()) await rig.write(client);
    }),
  );
}

const ringing = (deadlineMs = 10_000) => until('the listener rings', () => rig.mode === 'ringing', deadlineMs);

afterEach(async () => {
  await rig?.stop();
});

describe('WAKE=auto', () => {
  let clients: Client[];

  beforeEach(async () => {
    clients = await startRig();
    await rig.hearAnnouncements();
    await ringing();
  });

  it('leaves no change to the safety check while the load comes and goes', async () => {
    await trickle(clients, 20, 2_000);
    await burst(clients, 3_000, 4_000);
    await trickle(clients, 20, 2_000);
    for (const perSecond of [500, 1_500, 700, 1_200, 1_000]) await trickle(clients, perSecond, 1_000);
    // the last one of each burst has nobody behind it who would wake the listener in its place
    for (let i = 0; i < 30; i++) {
      await burst(clients.slice(0, 1 + Math.floor(Math.random() * clients.length)), 500, Math.random() * 150);
      await rig.allPublished();
      await sleep(Math.random() * 100);
    }
    // those that began while it polled end while it wants to ring, and the last of them lets it
    for (let i = 0; i < 12; i++) {
      await ringing();
      await burst(clients, 20_000, 10_000, () => rig.isSilent);
      await Promise.all(clients.map((client) => rig.write(client, () => sleep(Math.random() * 600))));
      await rig.allPublished();
    }
    await trickle(clients, 20, 1_000);
    await rig.allPublished();
    await rig.allAnnounced();

    const latencies = rig.latencies();
    const silentIn = (commit: Commit) =>
      rig.silent.some(({ from, to }) => commit.begunAt > from && commit.endedAt < to);
    const ringingIn = (commit: Commit) =>
      rig.ringing.some(({ from, to }) => commit.begunAt > from && commit.endedAt < to);
    const all = [...rig.commits.values()];
    const silent = all.filter(silentIn).length;
    const announced = all.filter(ringingIn).length;
    const switches = rig.modes.filter(({ mode }) => mode === 'polling').length;
    console.log(`${report(latencies)}; ${announced} while ringing, ${silent} while polling, ${switches} bursts`);
    expect(all.length).toBeGreaterThan(10_000);
    expect(switches).toBeGreaterThanOrEqual(12);
    expect(silent).toBeGreaterThan(all.length / 5);
    expect(announced).toBeGreaterThan(50);
    expect(latencies.at(-1)).toBeLessThan(lateMs);
    expect(await rig.metric('safetyFinds')).toBe(0);
    // each transaction announces once or not at all: all of those that had to have, and none that must not
    for (const client of clients) {
      const { processID: pid } = client as unknown as { processID: number };
      const own = all.filter((commit) => commit.pid === pid);
      const heard = rig.announced.get(pid) ?? 0;
      expect(heard).toBeGreaterThanOrEqual(own.filter(ringingIn).length);
      expect(heard).toBeLessThanOrEqual(own.length - own.filter(silentIn).length);
    }
  });

  it('polls for a long transaction that did not announce itself, and the others go on', async () => {
    const long = clients.pop()!;
    const held = Promise.withResolvers<void>();
    // it begins in the middle of a burst, so that it holds the lock shared
    let holds = false;
    const bursting = burst(clients, 100_000, 20_000, () => holds);
    await until('nobody rings', () => rig.isSilent, 10_000);
    const writing = rig.write(long, () => held.promise);
    await until(
      'it holds the lock',
      async () =>
        (
          await admin(
            rig.url,
            `select from pg_locks where locktype = 'advisory' and mode = 'ShareLock' and pid = ${pidOf(long)}`,
          )
        ).length > 0,
      5_000,
    );
    holds = true;
    await bursting;
    await until('the listener wants to ring', () => rig.mode === 'returning', 10_000);
    const modes = rig.modes.length;
    await trickle(clients, 20, safetyIntervalMs + 500);
    expect(rig.modes.slice(modes).map(({ mode }) => mode)).not.toContain('ringing');
    // a burst now must not be held to the pace of announcements: the request for the lock is withdrawn
    await burst(clients, 100_000, 5_000, () => rig.mode === 'polling');
    expect(rig.mode).toBe('polling');
    await rig.allPublished();
    held.resolve();
    await writing;
    await rig.allPublished();
    await ringing();
    expect(rig.latencies().at(-1)).toBeLessThan(lateMs);
    expect(await rig.metric('safetyFinds')).toBe(0);
  });

  it.each(['bell', 'lock'])('recovers when its %s connection is ended', async (name) => {
    for (let i = 0; i < 8; i++) {
      const ended = await admin(
        rig.url,
        `select pg_terminate_backend(pid) from pg_stat_activity
         where application_name = 'plank listener (${name})' and datname = current_database()`,
      );
      expect(ended).toEqual([{ pg_terminate_backend: true }]);
      await burst(clients, 1 + Math.floor(Math.random() * 200), 200);
      await rig.write(clients[0]!);
      await rig.allPublished();
      await until(
        'it is back',
        async () => (await connections(name)) === 1 && rig.mode === 'ringing' && (await rig.metric('ringing')) === 1,
        10_000,
      );
    }
    console.log(report(rig.latencies()));
    expect(rig.latencies().at(-1)).toBeLessThan(safetyIntervalMs);
    // it rings, and is heard
    const rings = await rig.metric('rings');
    await rig.write(clients[0]!);
    await until('the bell is heard', async () => (await rig.metric('rings')) > rings, lateMs);
  });

  it('gets the lock although the session of a former leader holds it', async () => {
    await admin(
      rig.url,
      "select pg_terminate_backend(pid) from pg_stat_activity where application_name = 'plank listener (lock)'",
    );
    const former = new Client({ connectionString: rig.url });
    former.on('error', () => {});
    await former.connect();
    try {
      await former.query('select pg_advisory_lock(1886151019, 1)');
    } catch {
      // the listener was faster, and has ended it already
    }
    await burst(clients, 200, 1_000);
    await rig.allPublished();
    await ringing();
    await rig.write(clients[0]!);
    await rig.allPublished();
    expect(rig.latencies().at(-1)).toBeLessThan(lateMs);
    await former.end().catch(() => {});
  });
});

describe('WAKE=poll', () => {
  it('finds everything without a single announcement, also what two-phase commit prepared', async () => {
    const clients = await startRig({ WAKE: 'poll' });
    await rig.hearAnnouncements();
    await trickle(clients, 100, 1_000);
    await burst(clients, 1_000, 2_000);
    await admin(rig.url, "begin; insert into t values (-1, 'prepared'); prepare transaction 'one'");
    await trickle(clients, 20, 500);
    expect(rig.commits.has(-1)).toBe(false);
    await admin(rig.url, "commit prepared 'one'");
    await until('the prepared one is published', () => rig.commits.has(-1), lateMs);
    await rig.allPublished();
    await rig.allAnnounced();
    expect(rig.announced.size).toBe(0);
    expect(rig.latencies().at(-1)).toBeLessThan(lateMs);
    expect(await rig.metric('safetyFinds')).toBe(0);
  });
});

function pidOf(client: Client): number {
  return (client as unknown as { processID: number }).processID;
}

async function connections(name: string): Promise<number> {
  return (
    await admin(
      rig.url,
      `select from pg_stat_activity where application_name = 'plank listener (${name})' and datname = current_database()`,
    )
  ).length;
}
