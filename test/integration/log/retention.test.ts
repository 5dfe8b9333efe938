// I9: changes past the retention are purged, in batches and with everything that belongs to them, while changes are captured, drained
// and read. Changes within the retention stay readable.

import { setTimeout as delay } from 'node:timers/promises';
import { afterAll, beforeAll, beforeEach, describe, expect, test } from 'vitest';
import { Sequencer } from '#listener/sequencer.ts';
import { LogReader, PositionGone } from '#shared/log/log-reader.ts';
import type { Pool } from '#shared/postgres/postgres.ts';
import { testPool } from '../../support/servers/pool.ts';
import { createDatabase, type TestDatabase } from '../../support/servers/servers.ts';
import { drainedRows } from '../../support/truth/batches.ts';
import { session } from '../../support/truth/capture.ts';
import { HotWriters, hotTables } from '../../support/truth/writers.ts';
import { until } from '../../support/wait.ts';

const nothing = { outbox: '0', log: '0', log_bytes: '0' };
const plenty = 1_000_000_000_000;

let database: TestDatabase;
let pool: Pool;
let reader: LogReader;
let sequencer: Sequencer;
let term: number;

beforeAll(async () => {
  database = await createDatabase();
  pool = testPool(database.url, 6);
  reader = new LogReader(pool);
  sequencer = await Sequencer.connect(database.url, 3_600_000, 10_000);
  await pool.query(hotTables);
  term = (await sequencer.lead('tests'))!.term;
});

beforeEach(async () => {
  await sequencer.drain(term);
  await purgeAll();
});

afterAll(async () => {
  await sequencer?.stop();
  await pool?.end();
  await database?.drop();
});

async function purge(keep: string, keepBytes: number, batch: number): Promise<number> {
  const { rows } = await pool.query<{ n: string }>('select plank.purge($1, $2, $3, $4) as n', [
    term,
    keep,
    keepBytes,
    batch,
  ]);
  return Number(rows[0]!.n);
}

async function purgeAll(): Promise<void> {
  while ((await purge('0', plenty, 5_000)) > 0);
}

async function left(): Promise<{ outbox: string; log: string; log_bytes: string }> {
  const { rows } = await pool.query(
    'select (select count(*) from plank.outbox) as outbox, (select count(*) from plank.log) as log, log_bytes from plank.leader',
  );
  return rows[0];
}

/** Inserts `rows` rows in one statement, and drains them: one row of plank.log. */
async function add(rows: number): Promise<void> {
  await pool.query('insert into bulk (run) select 1 from generate_series(1, $1)', [rows]);
  await sequencer.drain(term);
}

async function readable(after: number): Promise<number> {
  let count = 0;
  for await (const rows of reader.stream(after)) count += rows.length;
  return count;
}

describe('purging', () => {
  test('changes within the retention are not purged', async () => {
    await add(3);
    expect(await purge('1 hour', plenty, 1_000)).toBe(0);
    expect(await left()).toMatchObject({ outbox: '3', log: '1' });
  });

  test('changes are purged in batches, and a log row only after all of its changes', async () => {
    await add(25);
    const { oldest, newest } = await reader.extent();
    const gone: number[] = [];
    for (let i = 0; i < 2; i++) {
      gone.push(await purge('0', plenty, 10));
      expect((await left()).log).toBe('1');
      // it is being purged: no reader may begin with it
      expect(await reader.extent()).toMatchObject({ oldest: newest + 1, newest });
      await expect(reader.page(oldest - 1, 10)).rejects.toThrow(PositionGone);
    }
    while ((await purge('0', plenty, 10)) > 0) gone.push(0);
    expect(gone.slice(0, 2)).toEqual([10, 10]);
    expect(await left()).toEqual(nothing);
    expect(await reader.page(newest, 10)).toEqual([]);
  });

  test('changes older than the retention are purged, and younger ones are kept', async () => {
    await add(5);
    await add(5);
    const { newest } = await reader.extent();
    await pool.query("update plank.log set drained_at = now() - interval '2 hours' where last_seq <= $1", [newest - 5]);
    while ((await purge('1 hour', plenty, 3)) > 0);
    expect(await left()).toMatchObject({ outbox: '5', log: '1' });
    expect(await readable(newest - 5)).toBe(5);
    await expect(reader.page(newest - 6, 10)).rejects.toThrow(PositionGone);
  });

  test('the oldest changes are purged by size, and no more than necessary', async () => {
    for (let i = 0; i < 20; i++) await add(10);
    const { newest } = await reader.extent();
    const all = Number((await left()).log_bytes);
    const keep = Math.floor(all / 2);
    while ((await purge('1 hour', keep, 1_000)) > 0);
    const bytes = Number((await left()).log_bytes);
    expect(bytes).toBeLessThanOrEqual(keep);
    expect(bytes).toBeGreaterThan(keep - all / 10);
    const { oldest } = await reader.extent();
    expect(await readable(oldest - 1)).toBe(newest - oldest + 1);
  });

  test('changes that are not drained yet are not purged', async () => {
    await add(5);
    await pool.query('insert into bulk (run) values (2), (2)');
    await purgeAll();
    expect(await left()).toMatchObject({ outbox: '2', log: '0' });
    const drained = await sequencer.drain(term);
    expect(drained.kind === 'changes' && drainedRows(drained).length).toBe(2);
  });

  test('changes of a transaction that is open meanwhile are not purged', async () => {
    const long = await session(database.url);
    await long.query('begin; insert into bulk (run) values (7)');
    for (let i = 0; i < 5; i++) await add(3);
    await long.query('insert into bulk (run) values (8)');
    await purgeAll();
    await long.query('commit');
    await long.end();
    const drained = await sequencer.drain(term);
    expect(drained.kind === 'changes' && drainedRows(drained).map((row) => JSON.parse(row[6]!).run)).toEqual([7, 8]);
    await purgeAll();
    expect(await left()).toEqual(nothing);
  });
});

describe('under load', () => {
  test('changes within the retention stay readable and dense under load, and nothing is left behind in the end', async () => {
    const writers = new HotWriters(database.url, { writers: 4, bulkRows: 3_000 });
    const over = new AbortController();
    let purged = 0;
    let reads = 0;
    let late = 0;
    const loop = async (work: () => Promise<void>) => {
      while (!over.signal.aborted) {
        await work();
        await delay(2);
      }
    };
    const loops = Promise.all([
      loop(async () => void (await sequencer.drain(term))),
      loop(async () => {
        purged += await purge('300 ms', plenty, 500);
      }),
      // reads from the beginning of the log: changes that are purged meanwhile must be an error, not a gap
      loop(async () => {
        const { oldest } = await reader.extent();
        await readable(oldest - 1).catch((error: unknown) => {
          if (!(error instanceof PositionGone)) throw error;
          late++;
        });
        reads++;
      }),
      // reads from well within the retention: no change may be missing
      loop(async () => {
        const started = performance.now();
        const { newest } = await reader.extent();
        const { rows } = await pool.query<{ after: string | null }>(
          "select min(first_seq) - 1 as after from plank.log where drained_at > clock_timestamp() - interval '100 ms' and last_seq <= $1",
          [newest],
        );
        if (rows[0]!.after === null) return;
        const count = await readable(Number(rows[0]!.after)).catch((error: unknown) => error);
        // a machine that stalled longer than the rest of the retention rightly reads too late
        if (performance.now() - started < 150) expect(count).toBeGreaterThanOrEqual(newest - Number(rows[0]!.after));
      }),
    ]);
    loops.catch(() => over.abort());
    try {
      await until(
        'many changes were purged and read',
        () => over.signal.aborted || (purged > 20_000 && reads > 50),
        40_000,
      );
    } finally {
      over.abort();
      await Promise.all([loops, writers.stop()]);
    }
    expect(reads).toBeGreaterThan(late);

    for (;;) if ((await sequencer.drain(term)).kind === 'nothing') break;
    await purgeAll();
    expect(await left()).toEqual(nothing);
  });
});
