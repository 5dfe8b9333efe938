// Owns how changes get into the gateways that are benchmarked: as batches in Redis, one for each flush. What must stay true: when a
// gateway has a quiet moment (500 ms) and asks, the log in Postgres says that it is as far as Redis. Further, and the gateway would look
// there for what is on its way; less far, and it would take what it has for changes that never were.

import { setTimeout as delay } from 'node:timers/promises';
import { Client } from 'pg';
import type { Cluster } from '#deploy/local/cluster.ts';
import { type ChangeRow, packBatches } from '#shared/log/batch.ts';
import { RedisPublisher } from '#shared/log/fanout-redis.ts';
import { createLog } from '#shared/process/logger.ts';
import { until } from '../support/wait.ts';
import { message } from './baselines/message.ts';

/** channels, where clients ask for one; changes take turns through them */
export const rooms = 1_000;

const term = 1;
/** by then gateways have read what was published, and none has been quiet for long */
const tellAfterMs = 100;

export class Publishing {
  readonly #postgres: Client;
  readonly #publisher: RedisPublisher;
  readonly #epoch: number;
  readonly #relation: string;
  #seq: number;
  #room = 0;
  #told: Promise<unknown> = Promise.resolve();

  private constructor(
    postgres: Client,
    publisher: RedisPublisher,
    log: { epoch: number; relation: string; newest: string },
  ) {
    this.#postgres = postgres;
    this.#publisher = publisher;
    this.#epoch = log.epoch;
    this.#relation = log.relation;
    this.#seq = Number(log.newest);
  }

  static async start({ databaseUrl, redisUrl }: Cluster): Promise<Publishing> {
    const postgres = new Client({ connectionString: databaseUrl });
    await postgres.connect();
    await postgres.query('set synchronous_commit = off');
    const { rows } = await postgres.query(
      `select epoch, newest, id::text as relation from plank.extent(), plank.catalog where name = 'bench_items'`,
    );
    const publisher = new RedisPublisher(redisUrl, {
      name: 'plank',
      streamBytes: 64 * 1024 ** 2,
      log: createLog('silent', 'bench', 'bench'),
    });
    const answers = () =>
      publisher.lastSeq(rows[0].epoch).then(
        () => true,
        () => false,
      );
    await until('Redis answers', answers, 10_000);
    return new Publishing(postgres, publisher, rows[0]);
  }

  /** One batch: so many rows inserted by one transaction. To be followed by another one, or by `end`, within 400 ms. */
  async publish(changes: number): Promise<void> {
    await this.#told;
    const now = Date.now();
    const rows = Array.from({ length: changes }, (_, i): ChangeRow => {
      const id = this.#seq + i + 1;
      const row = JSON.stringify({ ...message.data, id: 100_000 + id, room: (this.#room + i) % rooms });
      const isLast = i === changes - 1 ? 't' : 'f';
      return [`${id}`, `${this.#seq + 1_000}`, `${now}`, this.#relation, 'I', `${100_000 + id}`, row, null, isLast];
    });
    const [batch, ...more] = packBatches(this.#epoch, rows, now);
    if (!batch || more.length > 0) throw new Error('a flush is to be one batch');
    const { status } = await this.#publisher.publish(batch, term);
    if (status !== 'published') throw new Error(`Redis answers: ${status}`);
    this.#seq += changes;
    this.#room = (this.#room + changes) % rooms;
  }

  /** The load is over: the log is told, a moment later. */
  end(): void {
    const tell = () =>
      this.#postgres.query('update plank.leader set written_by = pg_current_xact_id(), next_seq = $1', [this.#seq + 1]);
    this.#told = delay(tellAfterMs).then(tell);
  }

  async stop(): Promise<void> {
    await this.#told;
    await this.#publisher.stop();
    await this.#postgres.end();
  }
}
