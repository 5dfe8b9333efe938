/**
 * The fan-out through one Redis stream. An entry is one batch with the id "<lastSeq>-0", so Redis itself refuses a
 * repeat. All keys share one hash tag. A read blocks for at most a second, because a read on a dead connection looks
 * the same as a read that waits for changes.
 */
import type { Redis } from 'ioredis';
import type { Log } from '../process/logger.ts';
import { askRedis, commandTimeoutMs, openRedis } from '../redis.ts';
import { once } from '../waiting.ts';
import { type Batch, openBatch, withOwnBuffer } from './batch.ts';
import type { Publisher, PublishResult, StreamHead, Tail } from './fanout.ts';

/** the answer to a blocking read may come this much later than its blocking time */
const slackMs = 500;
/** bounds the memory that one read takes */
const entriesPerRead = 16;
/**
 * Bounds the memory that a client takes while it catches up. These entries stay in memory until the client has read
 * them.
 */
const entriesOfHistory = 4;

/**
 * Publishes a batch. KEYS: stream, meta. ARGV: epoch, term, first seq, last seq, batch, lowest id to keep, 1 to start
 * over. This is one script, so that two listeners cannot interleave. The script refuses a batch of an older term,
 * starts an empty stream for a new epoch, refuses a repeat and reports a gap. If the meta key or the stream is missing,
 * for example after a partial restore, the stream begins with this batch, and gateways read earlier changes from
 * Postgres.
 */
const publishScript = `
local meta = redis.call('HMGET', KEYS[2], 'epoch', 'term', 'last')
local epoch, term = tonumber(meta[1] or '0'), tonumber(meta[2] or '0')
if tonumber(ARGV[1]) < epoch or (tonumber(ARGV[1]) == epoch and tonumber(ARGV[2]) < term) then return {'deposed', '0'} end
local last = meta[3]
if not last or tonumber(ARGV[1]) > epoch or ARGV[7] == '1' then
  redis.call('DEL', KEYS[1])
  last = nil
end
if last and tonumber(ARGV[4]) <= tonumber(last) then return {'repeated', last} end
if last and tonumber(ARGV[3]) ~= tonumber(last) + 1 then return {'gap', last} end
redis.call('XADD', KEYS[1], 'MINID', ARGV[6], ARGV[4] .. '-0', 'b', ARGV[5])
redis.call('HSET', KEYS[2], 'epoch', ARGV[1], 'term', ARGV[2], 'last', ARGV[4])
return {'published', ARGV[4]}
`;

declare module 'ioredis' {
  interface RedisCommander {
    plankPublish(
      stream: string,
      meta: string,
      ...args: (string | number | Buffer)[]
    ): Promise<[PublishResult['status'], string]>;
  }
}

function keys(name: string): { stream: string; meta: string } {
  return { stream: `{${name}}:stream`, meta: `{${name}}:meta` };
}

export class RedisPublisher implements Publisher {
  readonly #redis: Redis;
  readonly #stream: string;
  readonly #meta: string;
  readonly #streamBytes: number;
  /** the entries that this publisher added, oldest first; from these, `publish` decides which entries to trim */
  readonly #kept: { id: string; bytes: number }[] = [];
  #keptBytes = 0;
  /** the bytes of the entries that earlier publishers left; these entries are trimmed first, and all at once */
  #inheritedBytes = 0;

  constructor(url: string, options: { name: string; streamBytes: number; log: Log }) {
    this.#redis = openRedis(url, options.log);
    this.#redis.defineCommand('plankPublish', { numberOfKeys: 2, lua: publishScript });
    ({ stream: this.#stream, meta: this.#meta } = keys(options.name));
    this.#streamBytes = options.streamBytes;
    this.#redis.on('ready', () => {
      this.#checkEviction(options.log).catch((error: Error) =>
        options.log.warn({ err: error }, 'could not check the eviction policy of Redis'),
      );
    });
  }

  async publish(batch: Batch, term: number, startsOver = false): Promise<PublishResult> {
    this.#kept.push({ id: `${batch.firstSeq}-0`, bytes: batch.buffer.length });
    this.#keptBytes += batch.buffer.length;
    if (this.#inheritedBytes + this.#keptBytes > this.#streamBytes) this.#inheritedBytes = 0;
    while (this.#keptBytes > this.#streamBytes && this.#kept.length > 1) this.#keptBytes -= this.#kept.shift()!.bytes;
    const keepFrom = this.#inheritedBytes > 0 ? '0-0' : this.#kept[0]!.id;
    const [status, last] = await askRedis(this.#redis, commandTimeoutMs, () =>
      this.#redis.plankPublish(
        this.#stream,
        this.#meta,
        batch.epoch,
        term,
        batch.firstSeq,
        batch.lastSeq,
        batch.buffer,
        keepFrom,
        startsOver ? 1 : 0,
      ),
    );
    return status === 'published' || status === 'deposed' ? { status } : { status, lastSeq: Number(last) };
  }

  async lastSeq(epoch: number): Promise<number | null> {
    const [of, last] = await askRedis(this.#redis, commandTimeoutMs, () =>
      this.#redis.hmget(this.#meta, 'epoch', 'last'),
    );
    this.#inheritedBytes =
      (await askRedis(this.#redis, commandTimeoutMs, () => this.#redis.memory('USAGE', this.#stream))) ?? 0;
    this.#kept.length = 0;
    this.#keptBytes = 0;
    return of === String(epoch) && last ? Number(last) : null;
  }

  async head(): Promise<StreamHead | null> {
    const [epoch, term, last] = await askRedis(this.#redis, commandTimeoutMs, () =>
      this.#redis.hmget(this.#meta, 'epoch', 'term', 'last'),
    );
    return epoch && last ? { epoch: Number(epoch), term: Number(term), lastSeq: Number(last) } : null;
  }

  size(): Promise<{ entries: number; bytes: number }> {
    return sizeOf(this.#redis, this.#stream);
  }

  /**
   * If Redis evicts keys when it is full, logs an error: Redis could evict the stream or its meta key, but should
   * refuse writes instead.
   */
  async #checkEviction(log: Log): Promise<void> {
    const policy = /maxmemory_policy:(\S+)/.exec(await this.#redis.info('memory'))?.[1];
    if (policy && policy !== 'noeviction')
      log.error({ policy }, 'Redis evicts keys when it is full; set maxmemory-policy to noeviction');
  }

  readonly stop = once(async () => {
    this.#redis.disconnect();
  });
}

export class RedisTail implements Tail {
  readonly kind = 'redis';
  readonly #redis: Redis;
  readonly #side: Redis;
  readonly #stream: string;

  constructor(url: string, options: { name: string; log: Log }) {
    this.#redis = openRedis(url, options.log);
    this.#side = openRedis(url, options.log.child({}, { level: 'silent' }));
    ({ stream: this.#stream } = keys(options.name));
  }

  async read(after: number, waitMs: number): Promise<Batch[]> {
    const reply = await askRedis(this.#redis, waitMs + slackMs, () =>
      this.#redis.callBuffer(
        'XREAD',
        'COUNT',
        entriesPerRead,
        'BLOCK',
        Math.max(1, waitMs),
        'STREAMS',
        this.#stream,
        `${after}-0`,
      ),
    );
    if (reply === null) return [];
    const [[, entries]] = reply as [[Buffer, Entry[]]];
    return entries.map(openEntry);
  }

  async history(after: number): Promise<Batch[]> {
    const entries = await askRedis(this.#side, commandTimeoutMs, () =>
      this.#side.callBuffer('XRANGE', this.#stream, `(${after}-0`, '+', 'COUNT', entriesOfHistory),
    );
    return (entries as Entry[]).map(openEntry);
  }

  size(): Promise<{ entries: number; bytes: number }> {
    return sizeOf(this.#side, this.#stream);
  }

  readonly stop = once(async () => {
    this.#redis.disconnect();
    this.#side.disconnect();
  });
}

async function sizeOf(redis: Redis, stream: string): Promise<{ entries: number; bytes: number }> {
  const [entries, bytes] = await askRedis(redis, commandTimeoutMs, () =>
    Promise.all([redis.xlen(stream), redis.memory('USAGE', stream)]),
  );
  return { entries, bytes: bytes ?? 0 };
}

type Entry = [id: Buffer, fields: [name: Buffer, batch: Buffer]];

function openEntry([, [, bytes]]: Entry): Batch {
  return withOwnBuffer(openBatch(bytes));
}
