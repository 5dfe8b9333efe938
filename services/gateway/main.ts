/** The gateway process: reads the settings, then starts one gateway, and stops it at the end. */

import { setFlagsFromString } from 'node:v8';
import { RedisBus } from '#shared/bus/bus-redis.ts';
import { RedisState } from '#shared/bus/shared-state-redis.ts';
import { RedisTail } from '#shared/log/fanout-redis.ts';
import { requireMigrated } from '#shared/postgres/migrate.ts';
import { readFlags } from '#shared/process/cli.ts';
import { gatewayProcessSchema, readConfig } from '#shared/process/config.ts';
import { runService } from '#shared/process/lifecycle.ts';
import { createLog } from '#shared/process/logger.ts';
import { createRegistry, gatewayMetrics } from '#shared/process/metrics.ts';
import { Gateway } from './gateway.ts';

// V8 caches up to four object shapes for each place in the code. Sockets have five shapes in this
// process: to Postgres, to Redis, of HTTP, during an upgrade, and after the upgrade. With four, each
// write to a socket would look up every property again: 0.5 µs of the 12 µs that a write takes.
setFlagsFromString('--max-valid-polymorphic-map-count=8');

await runService(
  'gateway',
  () => {
    readFlags({});
    return readConfig(gatewayProcessSchema);
  },
  async (config, stack) => {
    const log = createLog(config.LOG_LEVEL, 'gateway', config.NODE_NAME);
    const metrics = gatewayMetrics(createRegistry(config.NODE_NAME));
    await requireMigrated(config.DATABASE_URL);

    const tail = new RedisTail(config.REDIS_TAIL_URL ?? config.REDIS_URL, { name: config.PLANK_LOG_NAME, log });
    stack.defer(() => tail.stop());
    const bus = new RedisBus(config.REDIS_URL, { name: config.PLANK_LOG_NAME, log });
    stack.defer(() => bus.stop());
    const shared = new RedisState(config.REDIS_URL, { name: config.PLANK_LOG_NAME, log });
    stack.defer(() => shared.stop());
    const gateway = new Gateway({ config, tail, bus, shared, log, metrics });
    stack.defer(() => gateway.stop());
    await gateway.start();
    log.info({ port: gateway.port, opsPort: gateway.opsPort }, 'gateway ready');
  },
);
