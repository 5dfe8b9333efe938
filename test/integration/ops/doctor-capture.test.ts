// The doctor on a database at work: a long drain, one leader after another, a burst that vacuum has not cleaned up yet. None of these
// is a fault, unless it lasts.

import type { Client } from 'pg';
import { afterAll, beforeAll, beforeEach, describe, expect, test } from 'vitest';
import { examineCapture } from '#deploy/doctor/capture.ts';
import { examineOutbox } from '#deploy/doctor/outbox.ts';
import { connectPlainly } from '#deploy/doctor/postgres.ts';
import { createDatabase, type TestDatabase } from '../../support/servers/servers.ts';

let database: TestDatabase;
let client: Client;
let other: Client;

beforeAll(async () => {
  database = await createDatabase();
  [client, other] = await Promise.all([connectPlainly(database.url), connectPlainly(database.url)]);
});
afterAll(async () => {
  await Promise.all([client?.end(), other?.end()]);
  await database?.drop();
});

async function listOf(findings: AsyncGenerator<{ level: string; says: string }, unknown>): Promise<string[]> {
  const found: string[] = [];
  for await (const { level, says } of findings) found.push(`${level}: ${says}`);
  return found;
}

const examine = () =>
  listOf(examineCapture(client, { retentionMs: 3_600_000, retentionBytes: 1e9, patient: false, say: () => {} }));

describe('a leader', () => {
  /** Ends the lease of listener-1, so long ago. */
  const expired = (ago: string) =>
    client.query(
      `update plank.leader set written_by = pg_current_xact_id(), holder = 'listener-1/x', term = 3, expires_at = clock_timestamp() - interval '${ago}'`,
    );

  beforeEach(() => client.query('delete from items'));

  test('the doctor reports that a leader in a long drain leads', async () => {
    await expired('40 seconds');
    await client.query(
      `insert into items (name) values ('one'); update plank.outbox set at = at - interval '1 minute'`,
    );
    await other.query('begin');
    try {
      // a large drain that is not finished
      await other.query("select from plank.drain(3, 0, '3 seconds', false)");
      const found = await examine();
      expect(found).toContainEqual(
        expect.stringMatching(/^note: \d+ changes? waits? to be drained, .*: a drain is at work$/),
      );
      expect(found).toContainEqual(
        expect.stringMatching(
          /^ok: listener-1 leads \(term 3\), and has been draining for \d+ m?s: its lease is renewed/,
        ),
      );
    } finally {
      await other.query('rollback');
    }
    const found = await examine();
    expect(found).toContainEqual(expect.stringMatching(/^fault: \d+ changes? waits? to be drained/));
    expect(found).toContainEqual(expect.stringMatching(/^fault: no listener leads for 4\d s: .*listener-1$/));
  });

  test('the doctor reports that the next listener leads when one has just gone', async () => {
    await expired('100 ms');
    const examined = examine();
    await other.query('select pg_sleep(0.3)');
    await other.query(`select plank.lead('listener-2/y', '10 seconds')`);
    expect(await examined).toContain('ok: listener-2 leads (term 4)');
  });
});

describe('an outbox with many deleted rows', () => {
  const tolerated = { toleratedBytes: 500_000, vacuumWithinMs: 1_000 };
  const kept = { bytes: 1_000, most: 4_000 };

  /** Runs SQL in a session that ends, so that the statistics have it. */
  async function runs(sql: string): Promise<void> {
    const session = await connectPlainly(database.url);
    await session.query(sql);
    await session.end();
  }

  beforeEach(async () => {
    // vacuum runs only when the test says so
    await runs('alter table plank.outbox set (autovacuum_enabled = false)');
    await runs('vacuum plank.outbox');
    await runs(`insert into items (name) select repeat('x', 200) from generate_series(1, 3000)`);
  });

  const look = (patient: boolean, say: (text: string) => void = () => {}) =>
    listOf(examineOutbox(client, kept, { ...tolerated, patient, say }));

  test('the doctor finds nothing while the outbox is full of changes that are kept', async () => {
    expect(await look(true)).toEqual([
      expect.stringMatching(/^ok: the log holds 1000 B of at most 3.9 KiB, .* on disk$/),
    ]);
  });

  test('the doctor finds nothing bad when vacuum runs', async () => {
    await runs('delete from plank.outbox');
    expect(await look(false)).toEqual([
      expect.stringMatching(/^note: vacuum has not cleaned up plank.outbox yet: about/),
    ]);
    let vacuumed: Promise<void> | undefined;
    const found = await look(true, () => void (vacuumed = runs('vacuum plank.outbox')));
    await vacuumed;
    expect(found).toEqual([expect.stringMatching(/^ok: (the log holds|vacuum is cleaning up)/)]);
  });

  test('the doctor reports that vacuum does not run', async () => {
    await runs('delete from plank.outbox');
    expect(await look(true)).toEqual([
      expect.stringMatching(/^warning: no vacuum of plank.outbox within 1 s: about .* of deleted changes of/),
    ]);
  });

  test('the doctor reports that vacuum ran and could not remove the rows', async () => {
    await other.query('begin isolation level repeatable read');
    await other.query('select from items');
    try {
      await runs('delete from plank.outbox');
      let vacuumed: Promise<void> | undefined;
      const found = await look(true, () => void (vacuumed = runs('vacuum plank.outbox')));
      await vacuumed;
      expect(found).toEqual([expect.stringMatching(/^warning: vacuum ran on plank.outbox and could not remove about/)]);
    } finally {
      await other.query('rollback');
    }
  });
});
