// Owns the tests' view of captured changes: it leads and drains as a listener does, and applies the changes to a picture of every
// attached table. What must stay true: each run checks the whole promise, whatever the test itself looks at:
// - drained positions are dense, and plank.read_log returns the same changes byte for byte;
// - changes fit: an INSERT finds no row of its key, and each old image equals the row's image before;
// - the picture equals the tables, in the rendering of plank.catalog.

import { Client } from 'pg';
import { type ChangeRow, changeColumns } from '#shared/log/batch.ts';
import { asText } from '#shared/postgres/postgres.ts';
import { drainedRows } from './batches.ts';

export interface Change {
  seq: number;
  xid: string;
  table: string;
  action: string;
  key: string | null;
  new: string | null;
  old: string | null;
}

/** A session as any application has it, without Plank's settings. */
export async function session(url: string, options: { user?: string; password?: string } = {}): Promise<Client> {
  const own = new URL(url);
  if (options.user !== undefined) own.username = options.user;
  if (options.password !== undefined) own.password = options.password;
  const client = new Client({ connectionString: own.href, application_name: 'plank tests', query_timeout: 50_000 });
  client.on('error', () => {});
  await client.connect();
  return client;
}

export class Capture {
  url = '';
  /** the session in which `run` writes */
  writer!: Client;
  #drainer!: Client;
  #term = '';
  #names = new Map<string, string>();
  /** table → key → image */
  readonly #picture = new Map<string, Map<string, string>>();
  #seq = 0;

  static async start(url: string): Promise<Capture> {
    const capture = new Capture();
    await capture.lead(url);
    return capture;
  }

  /** Connects, and leads from here on. */
  async lead(url: string): Promise<void> {
    this.url = url;
    this.writer = await session(url);
    this.#drainer = await session(url);
    await this.#drainer.query(`select set_config(s, v, false) from unnest(
      array['timezone', 'datestyle', 'intervalstyle', 'extra_float_digits', 'bytea_output', 'lc_monetary'],
      array['UTC', 'ISO, YMD', 'iso_8601', '1', 'hex', 'C']) c(s, v)`);
    const { rows } = await this.#drainer.query("select term, next_seq from plank.lead('tests', '1 hour')");
    this.#term = rows[0].term;
    this.#seq = Number(rows[0].next_seq) - 1;
    await this.changes();
  }

  async stop(): Promise<void> {
    await Promise.all([this.writer.end(), this.#drainer.end()]);
  }

  /** The rows of a query, in a session that stays: a new one takes longer to plan Plank's functions than to run them. */
  async ask(sql: string): Promise<Record<string, string>[]> {
    return (await this.#drainer.query<Record<string, string>>(sql)).rows;
  }

  /** Runs SQL (several statements without `begin` are one transaction). Resolves with its changes, checked. */
  async run(sql: string, client: Client = this.writer): Promise<Change[]> {
    await client.query(sql);
    return this.changes();
  }

  /** `run`, with each change in short: action, key, and the images that it has. */
  async brief(sql: string, client: Client = this.writer): Promise<string[]> {
    return (await this.run(sql, client)).map(brief);
  }

  /** The changes committed since the last call, checked. */
  async changes(): Promise<Change[]> {
    const drained = await this.#drain();
    const changed = await this.#read();
    if (drained) equal(changed, drained, 'the result of plank.read_log');
    equal(
      changed.map(([seq]) => Number(seq)),
      changed.map((_, i) => this.#seq + 1 + i),
      'seqs',
    );
    this.#seq += changed.length;
    const attached = await this.ask('select a.id, a.name from plank.attached a join pg_class c on c.oid = a.relation');
    for (const { id, name } of attached) this.#names.set(String(id), name!);
    const changes = changed.map(([seq, xid, , relation, action, key, newImage, oldImage]): Change => {
      const table = this.#names.get(relation) ?? relation;
      return { seq: Number(seq), xid, table, action, key, new: newImage, old: oldImage };
    });
    const reshaped = new Set(
      changes.filter(({ action }) => action === 'S' || action === 'R').map((change) => change.table),
    );
    for (const change of changes) if (!reshaped.has(change.table)) this.#apply(change, changes);
    for (const { name } of attached) {
      const content = await this.content(name!);
      if (reshaped.has(name!) || !this.#picture.has(name!)) this.#picture.set(name!, content);
      equal(lines(this.#picture.get(name!)!), lines(content), `the picture of ${name}`, changes);
    }
    return changes;
  }

  /** key → image of every row, as a gateway reads them. */
  async content(name: string): Promise<Map<string, string>> {
    const { rows } = await this.#drainer.query<{ sql: string }>(
      `select format('select %s as key, (%s)::text as image from %s t', plank.key_sql(a, 't'), plank.image_sql(a, 't'), a.relation) as sql
       from plank.attached a join pg_class c on c.oid = a.relation where a.name = $1`,
      [name],
    );
    if (!rows[0]) return new Map();
    const content = await this.#drainer.query<{ key: string; image: string }>(rows[0].sql);
    return new Map(content.rows.map((row) => [row.key, row.image]));
  }

  #apply(change: Change, all: readonly Change[]): void {
    const rows = this.#picture.get(change.table);
    if (!rows) return;
    if (change.action === 'T') {
      rows.clear();
      return;
    }
    equal(change.old, rows.get(change.key!) ?? null, `the old image of "${brief(change)}"`, all);
    if (change.new === null) rows.delete(change.key!);
    else rows.set(change.key!, change.new);
    const expected = change.old === null ? 'I' : change.new === null ? 'D' : 'U';
    equal(change.action, expected, `the action of "${brief(change)}"`, all);
  }

  /** The changes of a drain, or null where they are too many to be returned at once. */
  async #drain(): Promise<ChangeRow[] | null> {
    const { rows } = await this.#drainer.query<{ first: string | null; last: string | null; packed: Buffer | null }>(
      "select first_seq as first, last_seq as last, packed from plank.drain($1, 1000000, '1 hour', false)",
      [this.#term],
    );
    const { first, last, packed } = rows[0]!;
    if (last === null) return [];
    return packed && drainedRows({ firstSeq: Number(first), packed });
  }

  async #read(): Promise<ChangeRow[]> {
    const text = `select ${changeColumns} from plank.read_log($1)`;
    const query = { text, values: [this.#seq], rowMode: 'array', types: asText } as const;
    return (await this.#drainer.query<ChangeRow>(query)).rows;
  }
}

/** "U 1 {old} {new}" */
function brief(change: Change): string {
  return [change.action, change.key, change.old, change.new].filter((part) => part !== null).join(' ');
}

function lines(rows: ReadonlyMap<string, string>): string[] {
  return [...rows].map(([key, image]) => `${key} ${image}`).sort();
}

function equal(found: unknown, expected: unknown, what: string, changes: readonly Change[] = []): void {
  const [a, b] = [JSON.stringify(found), JSON.stringify(expected)];
  if (a === b) return;
  const context = changes.slice(0, 60).map((change) => `\n  ${change.table} ${brief(change)}`);
  throw new Error(`${what} should be\n  ${b.slice(0, 2_000)}\nand not\n  ${a.slice(0, 2_000)}${context.join('')}`);
}
