// What the fan-out lacks comes from the log; where that has forgotten it too, the fan-out begins anew and goes on.

import { pino } from 'pino';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { Publishing } from '../../services/listener/publishing.ts';
import { type Changes, Sequencer } from '../../services/listener/sequencer.ts';
import { LocalFanout } from '../../shared/fanout-local.ts';
import { LogReader } from '../../shared/log-reader.ts';
import { createRegistry, listenerMetrics } from '../../shared/metrics.ts';
import type { Pool } from '../../shared/postgres.ts';
import { testPool } from '../support/pool.ts';
import { createDatabase } from '../support/servers.ts';

const stack = new AsyncDisposableStack();
const fanout = new LocalFanout();
let pool: Pool;
let sequencer: Sequencer;
let publishing: Publishing;
let term: number;

beforeAll(async () => {
  const database = await createDatabase();
  stack.defer(() => database.drop());
  pool = testPool(database.url, 3);
  stack.defer(() => pool.end());
  sequencer = await Sequencer.connect(database.url, 3_600_000, 10_000);
  stack.defer(() => sequencer.stop());
  await pool.query("create table told (id integer primary key); select plank.attach('told')");
  const lead = (await sequencer.lead('tests'))!;
  term = lead.term;
  publishing = new Publishing({
    publisher: fanout,
    reader: new LogReader(pool),
    lead,
    beginEpoch: (above, at) => sequencer.beginEpoch(term, above, at),
    log: pino({ level: 'silent' }),
    metrics: listenerMetrics(createRegistry('tests')),
  });
});

afterAll(() => stack.disposeAsync());

async function drained(sql: string): Promise<Changes> {
  await pool.query(sql);
  return (await sequencer.drain(term)) as Changes;
}

async function publish(sql: string): Promise<number> {
  const changes = await drained(sql);
  await publishing.publish(changes, Date.now());
  return changes.lastSeq;
}

const held = async () => (await fanout.history(0)).map(({ firstSeq, lastSeq }) => [firstSeq, lastSeq]);

describe('what was drained and not handed over', () => {
  it('is read from the log', async () => {
    await publish('insert into told values (1)');
    publishing.leave((await drained('insert into told values (2)')).lastSeq);
    expect(publishing.behind).toBe(true);
    const last = await publish('insert into told values (3)');
    expect(publishing.behind).toBe(false);
    expect(await fanout.lastSeq((await new LogReader(pool).extent()).epoch)).toBe(last);
    expect((await held()).at(-1)).toEqual([last - 1, last]);
  });

  it.each(['with the next changes', 'by itself'])('and is forgotten by then holds up nothing, %s', async (how) => {
    await publish(`insert into told select coalesce(max(id), 0) + 1 from told`);
    publishing.leave((await drained('insert into told select max(id) + 1 from told')).lastSeq);
    while (
      (await pool.query<{ gone: string }>("select plank.forget($1, '0', 1e12::bigint, 100) as gone", [term])).rows[0]!
        .gone !== '0'
    );
    let last: number;
    if (how === 'by itself') {
      last = (await drained('insert into told select max(id) + 1 from told')).lastSeq;
      await publishing.catchUp(last);
      await publishing.catchUp();
    } else {
      await publishing.catchUp();
      last = await publish('insert into told select max(id) + 1 from told');
    }
    expect(publishing.behind).toBe(false);
    expect(await held()).toEqual([[last, last]]);
  });
});
