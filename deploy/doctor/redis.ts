/**
 * Examines Redis: whether it answers, whether it never evicts, whether its data survives a restart, and whether its
 * stream reaches the end of the log.
 */
import { setTimeout as delay } from 'node:timers/promises';
import { Redis } from 'ioredis';
import type { Captured } from './capture.ts';
import { compareClock } from './clock.ts';
import { type Finding, fault, note, ok, reason, size, warning } from './finding.ts';

/** How long the stream may be behind the log. It is behind for a moment while changes are published. */
const patienceMs = 3_000;

interface Wanted {
  url: string;
  logName: string;
  streamBytes: number;
  captured: Captured | undefined;
}

export async function* examineRedis({ url, logName, streamBytes, captured }: Wanted): AsyncGenerator<Finding> {
  const redis = new Redis(url, {
    protocol: 2,
    lazyConnect: true,
    connectTimeout: 5_000,
    commandTimeout: 5_000,
    maxRetriesPerRequest: 0,
    retryStrategy: null,
  });
  let problem: unknown;
  redis.on('error', (error) => {
    problem = error;
  });
  try {
    try {
      await redis.connect();
    } catch (error) {
      yield fault(
        `Redis does not answer: ${reason(problem ?? error)}`,
        'until it does, gateways read the log in Postgres, which is slower; check REDIS_URL, and see whether Redis runs',
      );
      return;
    }
    const info = Object.fromEntries(
      (await redis.info())
        .split('\r\n')
        .map((line) => line.split(':', 2) as [string, string])
        .filter(([, value]) => value !== undefined),
    ) as Record<string, string>;
    yield* examineServer(info, streamBytes);
    yield* examineStream(redis, logName, captured);
    yield await compareClock('Redis', async () => {
      const [seconds, micros] = await redis.time();
      return Number(seconds) * 1_000 + Number(micros) / 1_000;
    });
  } finally {
    redis.disconnect();
  }
}

function* examineServer(info: Record<string, string>, streamBytes: number): Generator<Finding> {
  const version = info['valkey_version'] ?? info['redis_version'] ?? '';
  const [major = 0, minor = 0] = (info['redis_version'] ?? '').split('.').map(Number);
  const name = info['valkey_version'] === undefined ? 'Redis' : 'Valkey';
  if (major < 6 || (major === 6 && minor < 2))
    yield fault(`${name} ${version} is too old`, 'Plank needs Redis 6.2, or any Valkey');
  else yield ok(`${name} ${version} answers`);
  if (info['role'] === 'slave')
    yield fault('this Redis is a replica: it takes no writes', 'set REDIS_URL to the primary');
  const policy = info['maxmemory_policy'] ?? 'unknown';
  if (policy !== 'noeviction')
    yield fault(
      `maxmemory-policy is ${policy}: a full Redis would evict the stream`,
      'set maxmemory-policy noeviction; a listener does not start without it',
    );
  else yield ok('maxmemory-policy is noeviction');
  const [used, limit] = [Number(info['used_memory']), Number(info['maxmemory'])];
  if (limit > 0 && limit < streamBytes * 2)
    yield warning(
      `maxmemory is ${size(limit)}, but the stream alone may take ${size(streamBytes)}`,
      'raise maxmemory to at least twice STREAM_BYTES, or lower STREAM_BYTES',
    );
  else if (limit > 0 && used > limit * 0.9)
    yield warning(
      `${size(used)} of ${size(limit)} of memory are used`,
      'raise maxmemory: a full Redis refuses changes',
    );
  if (info['aof_enabled'] !== '1' && info['rdb_bgsave_in_progress'] !== undefined)
    yield note(
      'Redis is empty after a restart (appendonly is off)',
      'no change is lost, as gateways then read the log in Postgres; with appendonly yes they rarely have to',
    );
  if (info['aof_last_write_status'] === 'err' || info['rdb_last_bgsave_status'] === 'err')
    yield warning('Redis could not write to its disk recently', 'see its log, and whether the disk is full');
}

async function* examineStream(redis: Redis, logName: string, end: Captured | undefined): AsyncGenerator<Finding> {
  const read = async () => {
    const [epoch, last] = await redis.hmget(`{${logName}}:meta`, 'epoch', 'last');
    return { epoch: Number(epoch ?? 0), seq: Number(last ?? 0) };
  };
  if (!end) return;
  if (end.seq === 0) {
    yield ok('the log is empty so far');
    return;
  }
  const until = performance.now() + patienceMs;
  let at = await read();
  while ((at.epoch !== end.epoch || at.seq < end.seq) && performance.now() < until) {
    await delay(200);
    at = await read();
  }
  const advice =
    'the leading listener publishes: see its log, and check that REDIS_URL and PLANK_LOG_NAME are the same everywhere';
  if (at.epoch === 0) yield warning(`there is no stream of the log "${logName}"`, advice);
  else if (at.epoch !== end.epoch)
    yield warning('the stream holds another history (of another database, or an earlier state of this one)', advice);
  else if (at.seq < end.seq) yield warning(`the stream is ${end.seq - at.seq} changes behind the log`, advice);
  else yield ok('the stream reaches the end of the log');
}
