// Owns a load of writes into `items` and its truth: which version of which row has committed. What must stay true:
// - the truth comes from the writers' own commits, never from Plank; each row has one writer, and its versions (`value`: 1, 2,
//   3 …) count up by one;
// - after a write whose outcome is unknown (the connection broke), the row is not written again, and the database decides at the
//   end whether the write committed;
// - transactions that are rolled back write version -1, which no client may ever see.

import { setTimeout as delay } from 'node:timers/promises';
import { Client } from 'pg';
import { admin } from '../servers/admin.ts';
import type { TestClient } from '../stage/client.ts';
import { until } from '../wait.ts';

export interface LedgerOptions {
  databaseUrl: string;
  /** the base of REST, http://…; without it, all writes are SQL */
  restUrl?: string;
  sqlWriters?: number;
  restWriters?: number;
  /** transactions a second, of each writer */
  perSecond?: number;
}

interface Row {
  name: string;
  /** undefined while the outcome of the insert is unknown */
  id?: number;
  /** the last version that committed; 0: none */
  version: number;
  deleted: boolean;
}

/** One transaction of a writer. */
type Step =
  | { kind: 'insert'; rows: Row[] }
  | { kind: 'update'; rows: Row[] }
  | { kind: 'rollback'; rows: Row[] }
  | { kind: 'delete'; rows: Row[] };

/** Thrown when the outcome of a write is unknown. */
class Unknown extends Error {}

const rowsPerWriter = 25;
let ledgers = 0;

export class Ledger {
  /** transactions that have committed for sure */
  commits = 0;
  /** how often each HTTP status came; 0: no answer */
  readonly statuses = new Map<number, number>();
  /** the longest pause between two commits of one writer, in ms */
  longestPauseMs = 0;
  readonly #options: LedgerOptions;
  readonly #prefix = `ledger ${process.pid} ${++ledgers}`;
  readonly #rows: Row[] = [];
  readonly #unknown: Row[] = [];
  readonly #joined = new Map<TestClient, Map<Row, number>>();
  readonly #abort = new AbortController();
  #writers: Promise<void>[] = [];
  #names = 0;
  #end: Row | undefined;

  constructor(options: LedgerOptions) {
    this.#options = options;
  }

  start(): this {
    const { sqlWriters = 2, restWriters = this.#options.restUrl ? 1 : 0 } = this.#options;
    this.#writers = [
      ...Array.from({ length: sqlWriters }, () => this.#sqlWriter()),
      ...Array.from({ length: restWriters }, () => this.#restWriter()),
    ];
    return this;
  }

  /** Registers a client that connected during the load: earlier changes need not reach it. */
  join(client: TestClient): void {
    // one more write of each row may be under way
    this.#joined.set(client, new Map(this.#rows.map((row) => [row, row.version + 1])));
  }

  /** Resolves when this many more transactions have committed. */
  async more(commits: number, deadlineMs = 15_000): Promise<void> {
    const enough = this.commits + commits;
    await until(`${commits} more commits`, () => this.commits >= enough, deadlineMs);
  }

  /** Ends the writing. Idempotent. */
  async stop(): Promise<void> {
    this.#abort.abort();
    await Promise.all(this.#writers);
  }

  /** Adds a committed row of another writer to the truth. */
  add(id: number, version: number): void {
    this.#rows.push({ name: '', id, version, deleted: false });
  }

  /**
   * Ends the writing, reads the unknown outcomes, and writes one last row, which comes after everything else in the log.
   * Resolves when that row has reached all clients, with how long that took, in ms.
   */
  async finish(clients: readonly TestClient[], deadlineMs = 15_000): Promise<number> {
    await this.stop();
    const { databaseUrl } = this.#options;
    await this.#settle();
    const end = this.#row();
    end.id = Number(
      (await admin(databaseUrl, `insert into items (name, value) values ('${end.name}', 1) returning id`))[0]!['id'],
    );
    end.version = 1;
    this.#end = end;
    const key = keyOf(end);
    return until(
      'the last change reaches everyone',
      () => clients.every((client) => client.rows.has(key)),
      deadlineMs,
    ).catch((cause: unknown) => {
      const late = clients.filter((client) => !client.rows.has(key));
      const states = late.slice(0, 5).map((client) => ({
        pos: client.pos,
        open: client.isOpen,
        closes: client.closeCodes,
        refusals: client.refusals.slice(-5),
      }));
      throw new Error(`${late.length} of ${clients.length} clients lack the last change: ${JSON.stringify(states)}`, {
        cause,
      });
    });
  }

  /** What is wrong with the changes that a client got, in words. Empty when it got the whole truth, once and in order. */
  verify(client: TestClient): string[] {
    if (!this.#end) throw new Error('verify comes after finish');
    const problems = [...client.problems];
    const joined = this.#joined.get(client);
    const known = new Set<string>();
    for (const row of this.#rows) {
      if (row.id === undefined || row.version === 0) continue;
      const key = keyOf(row);
      known.add(key);
      const trail = client.rows.get(key);
      const before = joined?.get(row) ?? 0;
      if (!trail) {
        if (row.version > before || joined === undefined)
          problems.push(`${key}: nothing arrived of ${row.version} versions`);
      } else {
        if (trail.first > before + 1 || (joined === undefined && trail.first !== 1))
          problems.push(`${key}: it began with version ${trail.first}, expected ${before + 1}`);
        if (trail.last !== row.version) problems.push(`${key}: version ${trail.last} came last, not ${row.version}`);
        if (trail.deleted !== row.deleted)
          problems.push(`${key}: ${row.deleted ? 'its DELETE is missing' : 'a DELETE came'}`);
      }
    }
    for (const key of client.rows.keys())
      if (!known.has(key)) problems.push(`${key}: it arrived, and was never committed`);
    return problems.slice(0, 20);
  }

  /** the number of committed changes, after `finish` */
  get changes(): number {
    return this.#rows.reduce((sum, row) => sum + row.version + (row.deleted ? 1 : 0), 0);
  }

  #row(): Row {
    const row: Row = { name: `${this.#prefix} ${++this.#names}`, version: 0, deleted: false };
    this.#rows.push(row);
    return row;
  }

  /** The next transaction of a writer that has these rows. */
  #next(own: Row[], most: number): Step {
    if (own.length < rowsPerWriter)
      return { kind: 'insert', rows: Array.from({ length: most > 1 ? 5 : 1 }, () => this.#row()) };
    const random = Math.random();
    if (random < 0.03) return { kind: 'delete', rows: [pick(own)] };
    const rows = new Set(Array.from({ length: 1 + Math.floor(Math.random() * most) }, () => pick(own)));
    return { kind: random < 0.1 && most > 1 ? 'rollback' : 'update', rows: [...rows] };
  }

  async #write(most: number, run: (step: Step) => Promise<void>): Promise<void> {
    const { signal } = this.#abort;
    const pauseMs = 1_000 / (this.#options.perSecond ?? 60);
    const own: Row[] = [];
    let last = performance.now();
    while (!signal.aborted) {
      const step = this.#next(own, most);
      const started = performance.now();
      try {
        await run(step);
        for (const row of step.rows) {
          if (step.kind === 'insert') own.push(row);
          if (step.kind === 'insert' || step.kind === 'update') row.version++;
          if (step.kind === 'delete') row.deleted = true;
        }
        this.commits++;
        this.longestPauseMs = Math.max(this.longestPauseMs, performance.now() - last);
        last = performance.now();
      } catch (error) {
        if (!(error instanceof Unknown)) throw error;
        this.#unknown.push(...step.rows);
        await delay(50);
      }
      const gone = new Set(this.#unknown);
      for (let i = own.length - 1; i >= 0; i--) if (own[i]!.deleted || gone.has(own[i]!)) own.splice(i, 1);
      await delay(Math.max(0, pauseMs - (performance.now() - started)), undefined, { signal }).catch(() => {});
    }
  }

  async #sqlWriter(): Promise<void> {
    let client: Client | undefined;
    const connected = async () => {
      if (client) return client;
      const fresh = new Client({
        connectionString: this.#options.databaseUrl,
        application_name: 'plank test ledger',
        connectionTimeoutMillis: 5_000,
        query_timeout: 10_000,
      });
      fresh.on('error', () => {
        client = undefined;
      });
      await fresh.connect();
      return (client = fresh);
    };
    await this.#write(4, async (step) => {
      try {
        const sql = await connected();
        await sql.query('begin');
        for (const row of step.rows) await writeSql(sql, step.kind, row);
        await sql.query(step.kind === 'rollback' ? 'rollback' : 'commit');
      } catch (cause) {
        const broken = client;
        client = undefined;
        await broken?.end().catch(() => {});
        throw new Unknown('the connection broke', { cause });
      }
    });
    await client?.end();
  }

  async #restWriter(): Promise<void> {
    await this.#write(1, async ({ kind, rows: [row] }) => {
      const { name, id, version } = row!;
      if (kind === 'insert') {
        const { body } = await this.#rest('POST', '/api/items', { name, value: 1 });
        row!.id = (JSON.parse(body) as { id: number }).id;
      } else if (kind === 'delete') await this.#rest('DELETE', `/api/items/${id}`);
      else await this.#rest('PATCH', `/api/items/${id}`, { value: version + 1 });
    });
  }

  async #rest(method: string, path: string, body?: unknown): Promise<{ body: string }> {
    const response = await fetch(this.#options.restUrl + path, {
      method,
      signal: AbortSignal.timeout(10_000),
      ...(body === undefined ? {} : { headers: { 'content-type': 'application/json' }, body: JSON.stringify(body) }),
    }).catch((cause: unknown) => {
      this.#count(0);
      throw new Unknown('no answer', { cause });
    });
    this.#count(response.status);
    const text = await response.text().catch((cause: unknown) => {
      throw new Unknown('half an answer', { cause });
    });
    if (!response.ok) throw new Unknown(`${response.status}: ${text}`);
    return { body: text };
  }

  #count(status: number): void {
    this.statuses.set(status, (this.statuses.get(status) ?? 0) + 1);
  }

  async #settle(): Promise<void> {
    const { databaseUrl } = this.#options;
    const stands = new Map(
      (await admin(databaseUrl, `select id, name, value from items where starts_with(name, '${this.#prefix} ')`)).map(
        (row) => [row['name'], row],
      ),
    );
    for (const row of this.#unknown) {
      const found = stands.get(row.name);
      if (found) {
        row.id = Number(found['id']);
        row.version = Number(found['value']);
      } else if (row.version > 0) row.deleted = true;
    }
  }
}

async function writeSql(sql: Client, kind: Step['kind'], row: Row): Promise<void> {
  switch (kind) {
    case 'insert': {
      const { rows } = await sql.query<{ id: string }>('insert into items (name, value) values ($1, 1) returning id', [
        row.name,
      ]);
      row.id = Number(rows[0]!.id);
      return;
    }
    case 'update':
      return void (await sql.query('update items set value = $2 where id = $1', [row.id, row.version + 1]));
    case 'rollback':
      return void (await sql.query('update items set value = -1 where id = $1', [row.id]));
    case 'delete':
      return void (await sql.query('delete from items where id = $1', [row.id]));
  }
}

function keyOf(row: Row): string {
  return `items/${row.id}`;
}

function pick<T>(list: readonly T[]): T {
  return list[Math.floor(Math.random() * list.length)]!;
}
