// I3, I6 and I7 with concurrent transactions and two leaders that take the lead from each other: each committed change gets one seq.
// Seqs are dense, those of a row in commit order, those of a transaction together. The log returns the same bytes again.

import { setTimeout as delay } from 'node:timers/promises';
import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import { Deposed, Sequencer } from '#listener/sequencer.ts';
import type { ChangeRow } from '#shared/log/batch.ts';
import { LogReader } from '#shared/log/log-reader.ts';
import type { Pool } from '#shared/postgres/postgres.ts';
import { admin } from '../../support/servers/admin.ts';
import { testPool } from '../../support/servers/pool.ts';
import { createDatabase, type TestDatabase } from '../../support/servers/servers.ts';
import { drainedRows } from '../../support/truth/batches.ts';
import { HotWriters, hotTables } from '../../support/truth/writers.ts';

const loadMs = 8_000;
/** short, so that a rival that pauses longer is deposed */
const leaseMs = 30;

let database: TestDatabase;
let pool: Pool;
let reader: LogReader;

async function open(): Promise<void> {
  database = await createDatabase();
  pool = testPool(database.url);
  reader = new LogReader(pool);
}

async function close(): Promise<void> {
  await pool?.end();
  await database?.drop();
}

async function readAll(after: number, upTo = Number.POSITIVE_INFINITY): Promise<ChangeRow[]> {
  const rows: ChangeRow[] = [];
  for await (const chunk of reader.stream(after)) rows.push(...chunk);
  return rows.filter((row) => Number(row[0]) <= upTo);
}

/** Leads whenever it can, drains, and now and then sleeps longer than its lease. */
class Rival {
  readonly published: ChangeRow[] = [];
  terms = 0;
  deposed = 0;
  backlogs = 0;
  /** false: until a drain finds nothing */
  busy = true;
  readonly done: Promise<void>;

  constructor(name: string) {
    this.done = this.#run(name);
    this.done.catch(() => {});
  }

  async #run(name: string): Promise<void> {
    const sequencer = await Sequencer.connect(database.url, leaseMs, 10_000);
    try {
      while (this.busy) {
        const lead = await sequencer.lead(name);
        if (lead) await this.#lead(sequencer, lead.term, lead.headSeq);
        else await delay(2);
      }
    } finally {
      await sequencer.stop();
    }
  }

  async #lead(sequencer: Sequencer, term: number, headSeq: number): Promise<void> {
    this.terms++;
    let at = headSeq;
    try {
      for (;;) {
        const drained = await sequencer.drain(term);
        if (drained.kind === 'nothing' && !this.busy) return;
        if (drained.kind === 'changes') this.published.push(...drainedRows(drained));
        if (drained.kind === 'backlog') {
          this.backlogs++;
          this.published.push(...(await readAll(at, drained.lastSeq)));
        }
        if (drained.kind !== 'nothing') at = Number(this.published.at(-1)![0]);
        await delay(Math.random() < 0.1 ? leaseMs * 3 : Math.random() * 8);
      }
    } catch (error) {
      if (!(error instanceof Deposed)) throw error;
      this.deposed++;
    }
  }
}

describe('two rival leaders under load', () => {
  let published: ChangeRow[];
  let rivals: Rival[];

  beforeAll(async () => {
    await open();
    await admin(database.url, hotTables);
    const writers = new HotWriters(database.url, { writers: 6, bulkRows: 6_000 });
    rivals = [new Rival('one'), new Rival('two')];
    await Promise.race([delay(loadMs), ...rivals.map((rival) => rival.done)]);
    await writers.stop();
    // after the last write, one of them drains the rest
    for (const rival of rivals) rival.busy = false;
    await Promise.all(rivals.map((rival) => rival.done));
    const last = await Sequencer.connect(database.url, 60_000, 10_000);
    const lead = await last.lead('one');
    const drained = await last.drain((lead ?? (await last.lead('two')))!.term);
    await last.stop();
    published = rivals.flatMap((rival) => rival.published).sort((a, b) => Number(a[0]) - Number(b[0]));
    if (drained.kind !== 'nothing') published.push(...(await readAll(published.length)));
  });

  afterAll(close);

  test('both leaders take the lead from each other again and again', () => {
    for (const rival of rivals) {
      expect(rival.terms).toBeGreaterThan(5);
      expect(rival.deposed).toBeGreaterThan(3);
    }
    expect(rivals.reduce((sum, rival) => sum + rival.backlogs, 0)).toBeGreaterThan(0);
    expect(published.length).toBeGreaterThan(5_000);
  });

  test('seqs are dense, each given once', () => {
    expect(published.findIndex((row, i) => Number(row[0]) !== i + 1)).toBe(-1);
  });

  test('no change is lost, doubled or out of order', async () => {
    const hot = published.filter((row) => row[4] === 'U');
    const versions = new Map<number, number>();
    const wrong: unknown[] = [];
    for (const row of hot) {
      const { k, ver } = JSON.parse(row[6]!) as { k: number; ver: number };
      if (ver !== (versions.get(k) ?? 0) + 1) wrong.push({ row, after: versions.get(k) });
      versions.set(k, ver);
    }
    expect(wrong).toEqual([]);
    const now = await admin(database.url, 'select k, ver from hot order by k');
    expect(now.map((row) => [Number(row.k), Number(row.ver)])).toEqual([...versions].sort(([a], [b]) => a - b));
    expect(hot.length).toBeGreaterThan(500);
    const inserted = published.filter((row) => row[4] === 'I').length;
    const [bulk] = await admin(database.url, 'select count(*) as n from bulk');
    expect(inserted).toBe(Number(bulk!.n));
  });

  test('the changes of a transaction stay together', () => {
    const over = new Set<string>();
    const torn: string[] = [];
    let current = '';
    for (const [, xid] of published) {
      if (xid === current) continue;
      over.add(current);
      if (over.has(xid)) torn.push(xid);
      current = xid;
    }
    expect(torn).toEqual([]);
  });

  test('the log returns the same seqs and bytes again, from any position', async () => {
    expect(await readAll(0)).toEqual(published);
    for (let i = 0; i < 40; i++) {
      const after = Math.floor(Math.random() * (published.length + 1));
      const limit = 1 + Math.floor(Math.random() * 400);
      const page = await reader.page(after, limit);
      expect(page).toEqual(published.slice(after, after + page.length));
      expect(page.length).toBe(Math.min(limit, published.length - after));
    }
    const middle = Math.floor(published.length / 2);
    expect(await readAll(middle)).toEqual(published.slice(middle));
  });
});
