/**
 * The only user of ioredis. Every command has a deadline. If a command misses its deadline, its connection is replaced.
 */
import { Redis } from 'ioredis';
import type { Log } from './process/logger.ts';
import { withDeadlineOr } from './waiting.ts';

export const commandTimeoutMs = 1_500;

/**
 * Opens a connection that reconnects by itself. Logs once when Redis stops answering, and once when Redis answers
 * again.
 */
export function openRedis(url: string, log: Log): Redis {
  const redis = new Redis(url, {
    protocol: 2,
    lazyConnect: true,
    connectTimeout: commandTimeoutMs,
    // This timeout covers the handshake too: over a broken network, a new connection may be as silent as the old one.
    socketTimeout: commandTimeoutMs,
    disconnectTimeout: 200,
    enableOfflineQueue: false,
    maxRetriesPerRequest: 0,
    autoResendUnfulfilledCommands: false,
    // Subscribers call `subscribe` on each "ready" instead. If the connection ends during ioredis' own call, that call
    // rejects without a handler, which would end the process.
    autoResubscribe: false,
    keepAlive: 5_000,
    retryStrategy: (failures) => 50 + Math.random() * Math.min(1_000, 50 * 2 ** failures),
  });
  let healthy: boolean | undefined;
  redis.on('ready', () => {
    if (healthy === false) log.info('Redis answers again');
    healthy = true;
  });
  redis.on('error', (error: Error) => {
    if (healthy !== false)
      log.warn({ err: error }, 'Redis does not answer; changes are read from Postgres until it does');
    healthy = false;
  });
  // A failure needs no handling: ioredis keeps reconnecting.
  redis.connect().catch(() => {});
  return redis;
}

/** Resolves with the command's reply. If no reply comes within `ms`, reconnects and rejects. */
export async function askRedis<T>(redis: Redis, ms: number, command: () => Promise<T>): Promise<T> {
  return withDeadlineOr(command(), ms, () => {
    redis.disconnect(true);
    return new Error('Redis did not answer in time');
  });
}

/**
 * Checks the eviction policy at start-up. If Redis would evict keys, throws an error of one line. If Redis does not
 * answer, resolves, because Plank starts without Redis.
 */
export async function requireNoEviction(url: string): Promise<void> {
  const redis = new Redis(url, {
    protocol: 2,
    lazyConnect: true,
    connectTimeout: commandTimeoutMs,
    maxRetriesPerRequest: 0,
    retryStrategy: null,
  });
  redis.on('error', () => {});
  let info = '';
  try {
    const asking = redis.connect().then(() => redis.info('memory'));
    info = await withDeadlineOr(asking, 2 * commandTimeoutMs, () => new Error('Redis is silent'));
  } catch {
    return;
  } finally {
    redis.disconnect();
  }
  const policy = /maxmemory_policy:(\S+)/.exec(info)?.[1];
  if (policy && policy !== 'noeviction')
    throw new Error(
      `Redis has maxmemory-policy ${policy}: Plank needs noeviction, so that a full Redis refuses changes instead of evicting some`,
    );
}
