/** The gateway process: wiring only. */

import { RedisBus } from '#shared/bus-redis.ts';
import { gatewaySchema, readConfig } from '#shared/config.ts';
import { RedisTail } from '#shared/fanout-redis.ts';
import { runService } from '#shared/lifecycle.ts';
import { createLog } from '#shared/log.ts';
import { createRegistry, gatewayMetrics } from '#shared/metrics.ts';
import { requireMigrated } from '#shared/migrate.ts';
import { Gateway } from './gateway.ts';

await runService(
  'gateway',
  () => readConfig(gatewaySchema),
  async (config, stack) => {
    const log = createLog(config.LOG_LEVEL, 'gateway', config.NODE_NAME);
    const metrics = gatewayMetrics(createRegistry(config.NODE_NAME));
    if (!config.REDIS_URL) throw new Error('REDIS_URL is not set: a gateway process gets its changes through Redis');
    await requireMigrated(config.DATABASE_URL);

    const tail = new RedisTail(config.REDIS_TAIL_URL ?? config.REDIS_URL, { name: config.PLANK_LOG_NAME, log });
    stack.defer(() => tail.stop());
    const bus = new RedisBus(config.REDIS_URL, { name: config.PLANK_LOG_NAME, log });
    stack.defer(() => bus.stop());
    const gateway = new Gateway({ config, tail, bus, log, metrics });
    stack.defer(() => gateway.stop());
    await gateway.start();
    log.info({ port: gateway.port, opsPort: gateway.opsPort }, 'gateway ready');
  },
);
