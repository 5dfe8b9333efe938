/** The listener process: wires its parts together. */

import { RedisBus } from '#shared/bus/bus-redis.ts';
import { RedisPublisher } from '#shared/log/fanout-redis.ts';
import { requireMigrated } from '#shared/postgres/migrate.ts';
import { readFlags } from '#shared/process/cli.ts';
import { listenerProcessSchema, readConfig } from '#shared/process/config.ts';
import { runService } from '#shared/process/lifecycle.ts';
import { createLog } from '#shared/process/logger.ts';
import { createRegistry, listenerMetrics } from '#shared/process/metrics.ts';
import { requireNoEviction } from '#shared/redis.ts';
import { HttpServer } from './http.ts';
import { Listener } from './listener.ts';

await runService(
  'listener',
  () => {
    readFlags({});
    return readConfig(listenerProcessSchema);
  },
  async (config, stack) => {
    const log = createLog(config.LOG_LEVEL, 'listener', config.NODE_NAME);
    const metrics = listenerMetrics(createRegistry(config.NODE_NAME));
    await requireMigrated(config.DATABASE_URL);
    await requireNoEviction(config.REDIS_URL);

    const publisher = new RedisPublisher(config.REDIS_URL, {
      name: config.PLANK_LOG_NAME,
      streamBytes: config.STREAM_BYTES,
      log,
    });
    stack.defer(() => publisher.stop());
    const bus = new RedisBus(config.REDIS_URL, { name: config.PLANK_LOG_NAME, log });
    stack.defer(() => bus.stop());
    const listener = new Listener({ config, publisher, bus, log, metrics });
    stack.defer(() => listener.stop());
    const server = new HttpServer({
      host: config.HOST,
      port: config.LISTENER_PORT,
      registry: metrics.registry,
      health: () => listener.health(),
    });
    stack.defer(() => server.stop());
    await server.start();
    await listener.start();
    log.info({ port: server.port }, 'listener ready');
  },
);
