// Changes that the fan-out lacks come from the log. If they are no longer in the log, the fan-out starts over after them.

import { pino } from 'pino';
import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import { Publishing } from '#listener/publishing.ts';
import { type Changes, Deposed, type Lead, Sequencer } from '#listener/sequencer.ts';
import { LocalFanout } from '#shared/log/fanout-local.ts';
import { LogReader } from '#shared/log/log-reader.ts';
import type { Pool } from '#shared/postgres/postgres.ts';
import { createRegistry, listenerMetrics } from '#shared/process/metrics.ts';
import { testPool } from '../../support/servers/pool.ts';
import { createDatabase } from '../../support/servers/servers.ts';
import { batchOf } from '../../support/truth/batches.ts';

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

describe('changes that were drained and not published', () => {
  test('changes that were not published are read from the log', async () => {
    await publish('insert into told values (1)');
    publishing.leaveToCatchUp((await drained('insert into told values (2)')).lastSeq);
    expect(publishing.behind).toBe(true);
    const last = await publish('insert into told values (3)');
    expect(publishing.behind).toBe(false);
    expect(await fanout.lastSeq((await new LogReader(pool).extent()).epoch)).toBe(last);
    expect((await held()).at(-1)).toEqual([last - 1, last]);
  });

  test.each(['with the next changes', 'by itself'])(
    'changes that are purged before they are published hold up no later ones, %s',
    async (how) => {
      await publish(`insert into told select coalesce(max(id), 0) + 1 from told`);
      publishing.leaveToCatchUp((await drained('insert into told select max(id) + 1 from told')).lastSeq);
      while (
        (await pool.query<{ gone: string }>("select plank.purge($1, '0', 1e12::bigint, 100) as gone", [term])).rows[0]!
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
    },
  );
});

describe('a fan-out with another history', () => {
  const ahead: [what: string, head: (lead: Lead) => { epoch: number; term: number; lastSeq: number }][] = [
    ['of a later epoch', ({ epoch, term, headSeq }) => ({ epoch: epoch + 1_000_000, term, lastSeq: headSeq })],
    ['that is further than the log', ({ epoch, term, headSeq }) => ({ epoch, term, lastSeq: headSeq + 1_000 })],
    ['of a later term', ({ epoch, term, headSeq }) => ({ epoch, term: term + 1_000, lastSeq: headSeq })],
  ];

  test.each(ahead)('a fan-out %s makes a later epoch begin, and is replaced', async (_what, headOf) => {
    const other = new LocalFanout();
    const take = async () => {
      const lead = (await sequencer.lead('tests'))!;
      term = lead.term;
      const beginEpoch = (above: number, at: number | null) => sequencer.beginEpoch(lead.term, above, at);
      const log = pino({ level: 'silent' });
      const metrics = listenerMetrics(createRegistry('tests'));
      return {
        lead,
        own: new Publishing({ publisher: other, reader: new LogReader(pool), lead, beginEpoch, log, metrics }),
      };
    };
    const first = await take();
    const head = headOf(first.lead);
    await other.publish(batchOf(head.lastSeq, head.lastSeq, { epoch: head.epoch }), head.term);
    await expect(first.own.catchUp()).rejects.toThrow(Deposed);
    const { lead, own } = await take();
    expect(lead.epoch).toBeGreaterThan(Math.max(head.epoch, first.lead.epoch));
    await own.publish(await drained('insert into told select max(id) + 1 from told'), Date.now());
    expect(own.behind).toBe(false);
    expect(await other.lastSeq(lead.epoch)).toBe(lead.headSeq + 1);
  });

  test('a fan-out that another publisher took over is noticed with the next changes', async () => {
    const lead = (await sequencer.lead('tests'))!;
    term = lead.term;
    const other = new LocalFanout();
    const begun: unknown[] = [];
    const own = new Publishing({
      publisher: other,
      reader: new LogReader(pool),
      lead,
      beginEpoch: async (above, at) => {
        begun.push([above, at]);
      },
      log: pino({ level: 'silent' }),
      metrics: listenerMetrics(createRegistry('tests')),
    });
    await own.publish(await drained('insert into told select max(id) + 1 from told'), Date.now());
    await other.publish(batchOf(lead.headSeq + 2, lead.headSeq + 9, { epoch: lead.epoch }), lead.term);
    const next = await drained('insert into told select max(id) + 1 from told');
    await expect(own.publish(next, Date.now())).rejects.toThrow(Deposed);
    expect(begun).toEqual([[lead.epoch, lead.headSeq]]);
  });
});
