// Owns a listener and gateways within the test's own process that communicate through Redis, as the processes of a cluster do.

import { randomBytes } from 'node:crypto';
import { Redis } from 'ioredis';
import { Gateway } from '#gateway/gateway.ts';
import { Listener } from '#listener/listener.ts';
import { RedisPublisher, RedisTail } from '#shared/log/fanout-redis.ts';
import { gatewaySchema, listenerSchema, readConfig } from '#shared/process/config.ts';
import { createLog } from '#shared/process/logger.ts';
import { createRegistry, gatewayMetrics, listenerMetrics } from '#shared/process/metrics.ts';
import { redisUrl } from '../servers/servers.ts';

export interface Relay {
  /** the gateways' URLs */
  urls: string[];
  /** Deletes the stream, as FLUSHALL does. */
  flush(): Promise<void>;
  /** Starts one more gateway. Resolves with its URL. */
  startGateway(): Promise<string>;
  stop(): Promise<void>;
}

export async function startRelay(databaseUrl: string, env: Record<string, string> = {}): Promise<Relay> {
  const redis = await redisUrl();
  const name = `test-${randomBytes(6).toString('hex')}`;
  const settings = {
    NODE_NAME: 'test',
    LOG_LEVEL: 'silent',
    PORT: '0',
    CANARY_INTERVAL_MS: '0',
    ...env,
    DATABASE_URL: databaseUrl,
    REDIS_URL: redis,
    PLANK_LOG_NAME: name,
  };
  const log = createLog(settings.LOG_LEVEL, 'test', settings.NODE_NAME);
  const stack = new AsyncDisposableStack();
  const config = readConfig(listenerSchema, settings);
  const publisher = new RedisPublisher(redis, { name, streamBytes: config.STREAM_BYTES, log });
  stack.defer(() => publisher.stop());
  const listener = new Listener({ config, publisher, log, metrics: listenerMetrics(createRegistry('listener')) });
  stack.defer(() => listener.stop());
  await listener.start();
  const startGateway = async () => {
    const tail = new RedisTail(redis, { name, log });
    stack.defer(() => tail.stop());
    const own = readConfig(gatewaySchema, settings);
    const gateway = new Gateway({ config: own, tail, log, metrics: gatewayMetrics(createRegistry('gateway')) });
    stack.defer(() => gateway.stop());
    await gateway.start();
    return `http://127.0.0.1:${gateway.port}`;
  };
  return {
    urls: [await startGateway(), await startGateway()],
    startGateway,
    async flush() {
      const client = new Redis(redis);
      await client.del(`{${name}}:stream`, `{${name}}:meta`);
      client.disconnect();
    },
    stop: () => stack.disposeAsync(),
  };
}
