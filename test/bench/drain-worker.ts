// The process of the drain benchmark that carries captured rows from Postgres to Redis, by the listener's own parts, and what that is
// measured against: reading the same rows and throwing them away, and an XADD for each of them, in one pipeline.
//
//   drain-worker.ts <database url> <redis url>

import { Redis } from 'ioredis';
import { Publishing } from '#listener/publishing.ts';
import { Sequencer } from '#listener/sequencer.ts';
import { RedisPublisher } from '#shared/log/fanout-redis.ts';
import { LogReader } from '#shared/log/log-reader.ts';
import { asText, connect, createPool } from '#shared/postgres/postgres.ts';
import { createLog } from '#shared/process/logger.ts';
import { createRegistry, listenerMetrics } from '#shared/process/metrics.ts';
import { serve } from './child.ts';

export type DrainQuestion =
  /** gives seqs to all there is, and publishes it; not measured */
  | { ask: 'catch up' }
  /** takes `rows` rows that came since the last question, in one of three ways */
  | { ask: 'plank' | 'discard' | 'rowwise'; rows: number };

export interface Carried {
  ms: number;
}

const [databaseUrl = '', redisUrl = ''] = process.argv.slice(2);
const log = createLog('silent', 'bench', 'bench');
const metrics = listenerMetrics(createRegistry('bench'));
const onError = (error: Error) => log.error({ err: error }, 'a connection failed');
// of what is measured, nothing goes through the pool
const pool = createPool(databaseUrl, { applicationName: 'bench (pool)', statementTimeoutMs: 0, max: 2, onError });
const sequencer = await Sequencer.connect(databaseUrl, 600_000, 0);
const publisher = new RedisPublisher(redisUrl, { name: 'plank', streamBytes: 16 * 1024 ** 2, log });
const lead = (await sequencer.lead('bench'))!;
const beginEpoch = sequencer.beginEpoch.bind(sequencer, lead.term);
const publishing = new Publishing({ publisher, reader: new LogReader(pool), lead, beginEpoch, log, metrics });
await publishing.catchUp();
const { client } = await connect(databaseUrl, { applicationName: 'bench', statementTimeoutMs: 0 });
const redis = new Redis(redisUrl);
let lastId = '0';

serve(0, async (question: DrainQuestion): Promise<Carried> => {
  if (question.ask === 'catch up') {
    await catchUp();
    lastId = ((await client.query('select last_value from plank.outbox_id_seq')).rows[0] as { last_value: string })
      .last_value;
    return { ms: 0 };
  }
  const started = performance.now();
  const count = await ways[question.ask]();
  const ms = performance.now() - started;
  if (count !== question.rows) throw new Error(`${count} rows came of ${question.rows}`);
  return { ms };
});

async function catchUp(): Promise<void> {
  for (;;) {
    const drained = await sequencer.drain(lead.term);
    if (drained.kind === 'nothing') break;
    await publishing.catchUp(drained.lastSeq);
  }
  if (publishing.behind) throw new Error('Redis did not take what was drained');
}

const ways = {
  async plank(): Promise<number> {
    const drained = await sequencer.drain(lead.term);
    if (drained.kind !== 'changes') throw new Error(`a drain found ${drained.kind}`);
    await publishing.publish(drained, Date.now());
    if (publishing.behind) throw new Error('Redis did not take what was drained');
    return drained.lastSeq - drained.firstSeq + 1;
  },

  async discard(): Promise<number> {
    return (await select()).length;
  },

  async rowwise(): Promise<number> {
    const rows = await select();
    const pipeline = redis.pipeline();
    for (const [, xid, at, relation, action, key, newImage, oldImage] of rows) {
      const fields = [
        'xid',
        xid,
        'at',
        at,
        'relation',
        relation,
        'action',
        action,
        'key',
        key ?? '',
        'new',
        newImage ?? '',
      ];
      pipeline.xadd('bench:rowwise', 'MAXLEN', '~', 10_000, '*', ...fields, 'old', oldImage ?? '');
    }
    for (const [error] of (await pipeline.exec()) ?? []) if (error) throw error;
    return rows.length;
  },
};

type OutboxRow = [id: string, xid: string, at: string, relation: string, action: string, ...texts: (string | null)[]];

/** The rows behind the last ones, by id: cheaper than any order that is right. */
async function select(): Promise<OutboxRow[]> {
  const { rows } = await client.query<OutboxRow>({
    name: 'select_outbox',
    text: `select id, xid, extract(epoch from at) * 1000, relation, action, key, new, old from plank.outbox where id > $1 order by id`,
    values: [lastId],
    rowMode: 'array',
    types: asText,
  });
  lastId = rows.at(-1)?.[0] ?? lastId;
  return rows;
}
