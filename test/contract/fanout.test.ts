// One contract for both fan-outs, within a process and through Redis. Then the faults that only Redis has: it is full,
// loses the stream, falls silent.

import { randomBytes } from 'node:crypto';
import { Redis } from 'ioredis';
import { pino } from 'pino';
import { afterEach, beforeEach, describe, expect, test } from 'vitest';
import type { Batch } from '#shared/log/batch.ts';
import type { Publisher, Tail } from '#shared/log/fanout.ts';
import { LocalFanout } from '#shared/log/fanout-local.ts';
import { RedisPublisher, RedisTail } from '#shared/log/fanout-redis.ts';
import { requireNoEviction } from '#shared/redis.ts';
import { redisUrl } from '../support/servers/servers.ts';
import { TcpProxy } from '../support/stage/tcp-proxy.ts';
import { batchOf, rowsOf } from '../support/truth/batches.ts';
import { until } from '../support/wait.ts';

const log = pino({ level: 'silent' });
const never = new AbortController().signal;
const streamBytes = 200_000;

interface Pair {
  publisher: Publisher;
  tail: Tail;
}

const connected = async (publisher: Publisher, tail: Tail): Promise<void> => {
  const works = (work: () => Promise<unknown>) => () =>
    work().then(
      () => true,
      () => false,
    );
  await until(
    'the publisher is connected',
    works(() => publisher.lastSeq(1)),
    5_000,
  );
  await until(
    'the tail is connected',
    works(() => tail.history(0)),
    5_000,
  );
  await until(
    'it can be read',
    works(() => tail.read(0, 1, never)),
    5_000,
  );
};

const cleanups: (() => Promise<unknown>)[] = [];

afterEach(async () => {
  for (const cleanup of cleanups.splice(0).toReversed()) await cleanup();
});

async function overRedis(url: string, name: string): Promise<Pair> {
  const publisher = new RedisPublisher(url, { name, streamBytes, log });
  const tail = new RedisTail(url, { name, log });
  cleanups.push(
    () => publisher.stop(),
    () => tail.stop(),
  );
  await connected(publisher, tail);
  return { publisher, tail };
}

const ownName = () => `test-${randomBytes(6).toString('hex')}`;

async function redisClient(): Promise<Redis> {
  const redis = new Redis(await redisUrl());
  cleanups.push(async () => redis.disconnect());
  return redis;
}

const seqs = (batches: readonly Batch[]) => batches.map(({ firstSeq, lastSeq }) => `${firstSeq}-${lastSeq}`);

describe.each([
  {
    name: 'within the process',
    start: async (): Promise<Pair> => {
      const fanout = new LocalFanout();
      cleanups.push(() => fanout.stop());
      return { publisher: fanout, tail: fanout };
    },
  },
  { name: 'through Redis', start: async () => overRedis(await redisUrl(), ownName()) },
])('a fan-out $name', ({ start }) => {
  let publisher: Publisher;
  let tail: Tail;

  beforeEach(async () => {
    ({ publisher, tail } = await start());
  });

  test('a fan-out takes its first batch at any position, then only what follows', async () => {
    expect(await publisher.lastSeq(1)).toBeNull();
    expect(await publisher.publish(batchOf(11, 15), 1)).toEqual({ status: 'published' });
    expect(await publisher.publish(batchOf(16, 16), 1)).toEqual({ status: 'published' });
    expect(await publisher.lastSeq(1)).toBe(16);
    expect(await publisher.publish(batchOf(18, 20), 1)).toEqual({ status: 'gap', lastSeq: 16 });
    expect(await publisher.publish(batchOf(16, 16), 1)).toEqual({ status: 'repeated', lastSeq: 16 });
    expect(await publisher.publish(batchOf(12, 14), 1)).toEqual({ status: 'repeated', lastSeq: 16 });
    // a batch that overlaps does not follow
    expect(await publisher.publish(batchOf(15, 18), 1)).toEqual({ status: 'gap', lastSeq: 16 });
    expect(seqs(await tail.history(0))).toEqual(['11-15', '16-16']);
  });

  test('a batch that was read keeps no memory alive but its own', async () => {
    for (let seq = 1; seq <= 40; seq++) {
      // like a drain's batches: views of what the socket read
      const { buffer, ...batch } = batchOf(seq, seq, { bytes: [2, 900, 5_000][seq % 3]! });
      const view = Buffer.concat([buffer, Buffer.alloc(64 * 1024)]).subarray(0, buffer.length);
      await publisher.publish({ ...batch, buffer: view }, 1);
    }
    for (const { buffer } of [...(await tail.read(0, 1, never)), ...(await tail.history(0))])
      expect(buffer.buffer.byteLength).toBeLessThan(buffer.length * 1.1);
  });

  test('a publish of a former term is refused, and changes nothing', async () => {
    await publisher.publish(batchOf(1, 2), 7);
    expect(await publisher.publish(batchOf(3, 3), 6)).toEqual({ status: 'deposed' });
    expect(await publisher.lastSeq(1)).toBe(2);
    expect(await publisher.publish(batchOf(3, 3), 7)).toEqual({ status: 'published' });
    expect(await publisher.publish(batchOf(4, 4), 9)).toEqual({ status: 'published' });
    expect(await publisher.publish(batchOf(5, 5), 8)).toEqual({ status: 'deposed' });
    expect(seqs(await tail.history(0))).toEqual(['1-2', '3-3', '4-4']);
  });

  test('a new epoch begins empty whatever its terms are, and the former epoch is refused', async () => {
    await publisher.publish(batchOf(1, 9), 5);
    expect(await publisher.lastSeq(2)).toBeNull();
    expect(await publisher.publish(batchOf(7, 8, { epoch: 2 }), 1)).toEqual({ status: 'published' });
    expect(await publisher.lastSeq(2)).toBe(8);
    expect(await publisher.lastSeq(1)).toBeNull();
    expect(await publisher.publish(batchOf(10, 10), 5)).toEqual({ status: 'deposed' });
    const [only, ...more] = await tail.history(0);
    expect(more).toEqual([]);
    expect(only).toMatchObject({ epoch: 2, firstSeq: 7, lastSeq: 8 });
  });

  test('a fan-out starts over where the publisher says so, unless its term is over', async () => {
    await publisher.publish(batchOf(1, 9), 5);
    expect(await publisher.publish(batchOf(20, 21), 4, true)).toEqual({ status: 'deposed' });
    expect(await publisher.publish(batchOf(20, 21), 5, true)).toEqual({ status: 'published' });
    expect(seqs(await tail.read(9, 1_000, never))).toEqual(['20-21']);
    expect(seqs(await tail.history(0))).toEqual(['20-21']);
    expect(await publisher.publish(batchOf(22, 22), 5)).toEqual({ status: 'published' });
    expect(await publisher.lastSeq(1)).toBe(22);
  });

  test('a reader gets the same bytes, densely, from its position', async () => {
    const batches = [batchOf(1, 3), batchOf(4, 4, { bytes: 100_000 }), batchOf(5, 9)];
    for (const batch of batches) await publisher.publish(batch, 1);
    let after = 0;
    const read: Batch[] = [];
    while (after < 9) {
      const found = await tail.read(after, 1_000, never);
      read.push(...found);
      after = found.at(-1)!.lastSeq;
    }
    expect(seqs(read)).toEqual(['1-3', '4-4', '5-9']);
    read.forEach((batch, i) => expect(batch.buffer.equals(batches[i]!.buffer)).toBe(true));
    // a position in the middle of a batch gets the whole batch
    expect(seqs(await tail.read(2, 1_000, never))[0]).toBe('1-3');
    expect(seqs(await tail.read(6, 1_000, never))).toEqual(['5-9']);
    expect(seqs(await tail.history(6))).toEqual(['5-9']);
    expect(await tail.history(9)).toEqual([]);
  });

  test('a read waits for the next batch, and wakes with it', async () => {
    await publisher.publish(batchOf(1, 1), 1);
    const started = performance.now();
    expect(await tail.read(1, 200, never)).toEqual([]);
    expect(performance.now() - started).toBeGreaterThan(150);
    const reading = tail.read(1, 1_000, never);
    await publisher.publish(batchOf(2, 2), 1);
    const published = performance.now();
    expect(seqs(await reading)).toEqual(['2-2']);
    // it did not wait until its time was over
    expect(performance.now() - published).toBeLessThan(900);
  });

  test('history is read while another read waits', async () => {
    await publisher.publish(batchOf(1, 2), 1);
    let waiting = true;
    const reading = tail.read(2, 1_000, never).finally(() => {
      waiting = false;
    });
    expect(seqs(await tail.history(0))).toEqual(['1-2']);
    expect(waiting).toBe(true);
    await publisher.publish(batchOf(3, 3), 1);
    expect(seqs(await reading)).toEqual(['3-3']);
  });

  test('a fan-out keeps a bounded stretch, and a reader that lags behind it sees a gap', async () => {
    // more than either fan-out keeps
    const each = 50_000;
    for (let seq = 1; seq <= 120; seq++) await publisher.publish(batchOf(seq, seq, { bytes: each }), 1);
    const first = (await tail.read(0, 1_000, never))[0]!.firstSeq;
    expect(first).toBeGreaterThan(1);
    expect(first).toBeLessThanOrEqual(120);
    expect((await tail.history(0))[0]!.firstSeq).toBe(first);
    let after = first - 1;
    while (after < 120) {
      for (const batch of await tail.read(after, 1_000, never)) {
        expect(batch.firstSeq).toBe(after + 1);
        after = batch.lastSeq;
      }
    }
  });

  test('a fan-out can be stopped twice', async () => {
    await publisher.publish(batchOf(1, 1), 1);
    await Promise.all([publisher.stop(), publisher.stop(), tail.stop(), tail.stop()]);
    await publisher.stop();
    await tail.stop();
  });
});

describe('a fan-out through Redis', () => {
  test('the stream uses no more memory than it may, even where publishers take turns', async () => {
    const name = ownName();
    const redis = await redisClient();
    const used = async () => (await redis.memory('USAGE', `{${name}}:stream`)) ?? 0;
    let seq = 0;
    for (let term = 1; term <= 4; term++) {
      const { publisher } = await overRedis(await redisUrl(), name);
      await publisher.lastSeq(1);
      for (let i = 0; i < 60; i++) {
        expect(await publisher.publish(batchOf(++seq, seq, { bytes: 10_000 }), term)).toEqual({ status: 'published' });
        // Redis frees whole nodes of a stream
        expect(await used()).toBeLessThan(streamBytes * 1.5);
      }
      expect(await used()).toBeGreaterThan(streamBytes / 2);
    }
  });

  test('a fan-out continues from what is left when the stream or its metadata is deleted', async () => {
    const name = ownName();
    const redis = await redisClient();
    const { publisher, tail } = await overRedis(await redisUrl(), name);
    await publisher.publish(batchOf(1, 5), 1);
    await redis.del(`{${name}}:meta`);
    expect(await publisher.lastSeq(1)).toBeNull();
    expect(await publisher.publish(batchOf(8, 9), 1)).toEqual({ status: 'published' });
    expect(seqs(await tail.history(0))).toEqual(['8-9']);
    await redis.del(`{${name}}:stream`);
    expect(await publisher.publish(batchOf(10, 10), 1)).toEqual({ status: 'published' });
    expect(seqs(await tail.history(0))).toEqual(['10-10']);
    await redis.del(`{${name}}:stream`, `{${name}}:meta`);
    expect(await tail.read(10, 10, never)).toEqual([]);
    expect(await publisher.lastSeq(1)).toBeNull();
  });

  test('every call ends within two seconds when Redis falls silent, and recovers', async () => {
    const proxy = await TcpProxy.start(await redisUrl());
    cleanups.push(() => proxy.stop());
    const { publisher, tail } = await overRedis(proxy.through(await redisUrl()), ownName());
    await publisher.publish(batchOf(1, 1), 1);
    const reading = tail.read(1, 1_000, never);
    proxy.blackhole();
    const late = async (work: () => Promise<unknown>) => {
      const started = performance.now();
      await expect(work()).rejects.toThrow();
      return performance.now() - started;
    };
    const paths = [
      () => reading,
      () => tail.history(0),
      () => publisher.publish(batchOf(2, 2), 1),
      () => publisher.lastSeq(1),
    ];
    for (const ms of await Promise.all(paths.map(late))) expect(ms).toBeLessThan(2_000);
    // further tries fail as fast, and none of them hangs
    for (const ms of await Promise.all([() => tail.read(1, 1_000, never), ...paths.slice(1)].map(late)))
      expect(ms).toBeLessThan(2_000);
    proxy.pass();
    await connected(publisher, tail);
    await publisher.publish(batchOf(2, 2), 1);
    expect(seqs(await tail.read(1, 1_000, never))).toEqual(['2-2']);
  });

  test('a batch whose answer was lost can be published again', async () => {
    const proxy = await TcpProxy.start(await redisUrl());
    cleanups.push(() => proxy.stop());
    const { publisher, tail } = await overRedis(proxy.through(await redisUrl()), ownName());
    await publisher.publish(batchOf(1, 1), 1);
    proxy.holdReplies();
    const publishing = publisher.publish(batchOf(2, 2), 1);
    await until('Redis has answered', () => proxy.heldBytes > 0, 1_000);
    proxy.cut();
    proxy.pass();
    await expect(publishing).rejects.toThrow();
    await connected(publisher, tail);
    expect(await publisher.publish(batchOf(2, 2), 1)).toEqual({ status: 'repeated', lastSeq: 2 });
    expect(await publisher.publish(batchOf(3, 3), 1)).toEqual({ status: 'published' });
    expect(seqs(await tail.history(0))).toEqual(['1-1', '2-2', '3-3']);
  });

  test('publishers that do not know of each other share one stream', async () => {
    const name = ownName();
    const pairs = await Promise.all(
      [1, 2, 3].map(async (term) => ({ term, ...(await overRedis(await redisUrl(), name)) })),
    );
    await Promise.all(
      pairs.map(async ({ term, publisher }) => {
        for (let seq = 1; seq <= 100; seq++) await publisher.publish(batchOf(seq, seq), term);
      }),
    );
    const { tail } = pairs[0]!;
    let after = 0;
    while (after < 100) {
      for (const batch of await tail.read(after, 1_000, never)) {
        expect(batch.firstSeq).toBe(after + 1);
        after = batch.lastSeq;
      }
    }
    expect(await tail.read(100, 1, never)).toEqual([]);
  });

  test('a start does not wait for a Redis that does not answer', async () => {
    const proxy = await TcpProxy.start(await redisUrl());
    cleanups.push(() => proxy.stop());
    await requireNoEviction(proxy.through(await redisUrl()));
    proxy.blackhole();
    const started = performance.now();
    await requireNoEviction(proxy.through(await redisUrl()));
    expect(performance.now() - started).toBeLessThan(5_000);
  });
});

describe('made-up batches', () => {
  test('batchOf makes the positions that other tests rely on', () => {
    expect(rowsOf(3, 5).map(([seq]) => seq)).toEqual(['3', '4', '5']);
    expect(batchOf(3, 5)).toMatchObject({ epoch: 1, firstSeq: 3, lastSeq: 5 });
  });
});
