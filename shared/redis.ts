/** The door to ioredis. A connection that no longer answers is noticed by the deadline of each command, and made anew. */
import { Redis } from 'ioredis';
import type { Log } from './process/logger.ts';
import { withDeadlineOr } from './waiting.ts';

export const commandTimeoutMs = 1_500;

/** Connects by itself, again and again; says once when Redis falls silent and once when it is back. */
export function openRedis(url: string, log: Log): Redis {
  const redis = new Redis(url, {
    protocol: 2,
    lazyConnect: true,
    connectTimeout: commandTimeoutMs,
    // also for the handshake: behind a broken network a new connection may be as silent as the old one
    socketTimeout: commandTimeoutMs,
    disconnectTimeout: 200,
    enableOfflineQueue: false,
    maxRetriesPerRequest: 0,
    autoResendUnfulfilledCommands: false,
    // who subscribes does so on each "ready": ioredis' own call rejects unheard where the connection ends just then, which ends the process
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
  // resolved or not, reconnecting goes on by itself
  redis.connect().catch(() => {});
  return redis;
}

/** A command's reply, or a connection torn down and tried anew, within the deadline. */
export async function askRedis<T>(redis: Redis, ms: number, command: () => Promise<T>): Promise<T> {
  return withDeadlineOr(command(), ms, () => {
    redis.disconnect(true);
    return new Error('Redis did not answer in time');
  });
}

/** For start-up: throws in one line where Redis answers and would evict keys; resolves where it does not answer, which is not needed to start. */
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
      `Redis has maxmemory-policy ${policy}: Plank needs noeviction, so that a full Redis refuses instead of forgetting`,
    );
}
