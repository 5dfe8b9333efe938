// Owns a listener whose doorbell is watched, with its database, fan-out and writers in one process, so that one clock orders
// all events: what each writer committed, when it was published, who announced a change, and when the listener rang or polled.

import { Client, type Notification } from 'pg';
import { pino } from 'pino';
import { Listener } from '#listener/listener.ts';
import { BatchReader } from '#shared/log/batch.ts';
import { LocalFanout } from '#shared/log/fanout-local.ts';
import { listenerSchema, readConfig } from '#shared/process/config.ts';
import { createRegistry, listenerMetrics } from '#shared/process/metrics.ts';
import { admin } from '../servers/admin.ts';
import { createDatabase, type TestDatabase } from '../servers/servers.ts';
import { until } from '../wait.ts';

export const safetyIntervalMs = 3_000;
/** One transaction of a writer, which inserts one row. */
export interface Commit {
  pid: number;
  begunAt: number;
  /** when the writer got the answer to its commit */
  endedAt: number;
  /** when the batch with it came out of the fan-out */
  publishedAt?: number;
}

interface Span {
  from: number;
  to: number;
}

export class DoorbellRig {
  readonly commits = new Map<number, Commit>();
  readonly announced = new Map<number, number>();
  readonly modes: { mode: string; at: number }[] = [];
  /** spans in which nobody held or requested the lock */
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

  static async start(env: Record<string, string> = {}): Promise<DoorbellRig> {
    const database = await createDatabase();
    await admin(database.url, "create table t (id integer primary key, v text); select plank.attach('t')");
    const rig = new DoorbellRig(database, env);
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

  /** Counts, from now on, the announcements of each session. */
  async hearAnnouncements(): Promise<void> {
    const client = await this.client();
    client.on('notification', (received: Notification) => {
      if (received.channel === 'mark') this.#marks++;
      else this.announced.set(received.processId, (this.announced.get(received.processId) ?? 0) + 1);
    });
    await client.query('listen plank');
    await client.query('listen mark');
  }

  /** Resolves when every announcement up to now is counted: notifications come in the order of commits. */
  async allAnnounced(): Promise<void> {
    const marks = this.#marks + 1;
    await admin(this.url, 'notify mark');
    await until('the mark arrives', () => this.#marks >= marks, 10_000);
  }

  /** Writes one row in a transaction of its own, which runs `work` before its commit. */
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
    const known = this.commits.get(id);
    this.commits.set(id, { ...known, pid: pidOf(client), begunAt, endedAt: performance.now() });
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
          if (seq > 0 && reader.seq !== seq + 1) throw new Error(`seq ${reader.seq} after ${seq}`);
          seq = reader.seq;
          const id = Number(reader.buffer.toString('latin1', reader.keyStart, reader.keyEnd));
          if (reader.keyEnd <= reader.keyStart) continue;
          // the answer to the commit may reach the writer after the batch is published
          const commit = this.commits.get(id) ?? { pid: 0, begunAt: publishedAt, endedAt: publishedAt };
          if (commit.publishedAt !== undefined) throw new Error(`row ${id} was published twice`);
          this.commits.set(id, { ...commit, publishedAt });
        }
      }
    }
  }

  #logged(line: string): void {
    const { msg, mode } = JSON.parse(line) as { msg: string; mode?: string };
    if (msg !== 'the doorbell changed its mode' || mode === undefined) return;
    const at = performance.now();
    const silence = this.silent.at(-1);
    if (silence && this.isSilent) silence.to = at;
    this.modes.push({ mode, at });
    if (mode === 'polling') void this.#watchForSilence().catch(() => {});
  }

  /** The listener logs that it polls a moment before it releases the lock. */
  async #watchForSilence(): Promise<void> {
    const turn = this.modes.length;
    while (this.modes.length === turn && !this.#abort.signal.aborted) {
      const held = await admin(this.url, "select from pg_locks where locktype = 'advisory' and mode = 'ExclusiveLock'");
      if (held.length > 0) continue;
      if (this.modes.length === turn) this.silent.push({ from: performance.now(), to: Number.POSITIVE_INFINITY });
      return;
    }
  }

  /** Whether no session announces changes at this moment. */
  get isSilent(): boolean {
    return this.silent.at(-1)?.to === Number.POSITIVE_INFINITY;
  }

  /** The spans in which every new transaction had to announce its changes. */
  get ringing(): Span[] {
    return this.modes.flatMap(({ mode, at }, i) =>
      mode === 'ringing' ? [{ from: at, to: this.modes[i + 1]?.at ?? Number.POSITIVE_INFINITY }] : [],
    );
  }
}

export function pidOf(client: Client): number {
  return (client as unknown as { processID: number }).processID;
}
