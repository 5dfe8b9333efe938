// The least rights in Redis, as deploy/redis/users.acl gives them: a listener and a gateway do all of their work with them, and a gateway
// cannot write to the stream.

import { randomBytes } from 'node:crypto';
import { join } from 'node:path';
import { Redis } from 'ioredis';
import { pino } from 'pino';
import { afterAll, beforeAll, expect, test } from 'vitest';
import { type LocalRedis, startRedis } from '#deploy/local/redis.ts';
import { RedisBus } from '#shared/bus/bus-redis.ts';
import { RedisState } from '#shared/bus/shared-state-redis.ts';
import { packBatches } from '#shared/log/batch.ts';
import { RedisPublisher, RedisTail } from '#shared/log/fanout-redis.ts';
import { until } from '../../support/wait.ts';

const log = pino({ level: 'silent' });
const name = 'plank';
const password = randomBytes(12).toString('hex');
let redis: LocalRedis;
const stack = new AsyncDisposableStack();

const as = (user: string) => redis.url.replace('redis://', `redis://${user}:${password}@`);

beforeAll(async () => {
  redis = await startRedis({ args: ['--aclfile', join(import.meta.dirname, '../../../deploy/redis/users.acl')] });
  stack.defer(() => redis.stop());
  const admin = new Redis(redis.url);
  for (const user of ['plank_listener', 'plank_gateway']) await admin.acl('SETUSER', user, `>${password}`);
  admin.disconnect();
});
afterAll(() => stack.disposeAsync());

test('a listener publishes and a gateway reads, and both use the bus', async () => {
  const publisher = new RedisPublisher(as('plank_listener'), { name, streamBytes: 1_000_000, log });
  const tail = new RedisTail(as('plank_gateway'), { name, log });
  const buses = [
    new RedisBus(as('plank_listener'), { name, log }),
    new RedisBus(as('plank_gateway'), { name, log }),
  ] as const;
  stack.defer(async () => {
    await Promise.all([publisher.stop(), tail.stop(), ...buses.map((bus) => bus.stop())]);
  });
  const [batch] = packBatches(7, [['1', '5', '0', '1', 'I', '1', '{"id":1}', null, 't']]);
  await until(
    'the batch is published',
    () =>
      publisher.publish(batch!, 1).then(
        ({ status }) => status === 'published',
        () => false,
      ),
    5_000,
  );
  expect(await publisher.lastSeq(7)).toBe(1);
  expect(await publisher.head()).toEqual({ epoch: 7, term: 1, lastSeq: 1 });
  expect((await publisher.size()).entries).toBe(1);
  await until(
    'the tail is connected',
    () =>
      tail.size().then(
        () => true,
        () => false,
      ),
    5_000,
  );
  expect(await tail.read(0, 100)).toHaveLength(1);
  expect(await tail.history(0)).toHaveLength(1);
  for (const [from, to] of [buses, buses.toReversed()]) {
    let received = 0;
    to.listen(() => received++);
    await until(
      'a message has arrived',
      () => {
        from.send({});
        return received > 0;
      },
      5_000,
    );
  }
});

test('a gateway keeps tickets, seats and rates', async () => {
  const state = new RedisState(as('plank_gateway'), { name, log });
  stack.defer(() => state.stop());
  await until(
    'it keeps a text',
    () =>
      state.keep('a', 'text', 5_000).then(
        () => true,
        () => false,
      ),
    5_000,
  );
  expect(await state.take('a')).toBe('text');
  const admin = new Redis(redis.url);
  stack.defer(() => admin.disconnect());
  expect(await state.sit('ada', 1)).not.toBeNull();
  expect(await admin.scard('{plank}:seats:ada')).toBe(1);
  expect(await state.sit('ada', 1)).toBeNull();
  const rate = state.rate('r', { points: 1, seconds: 60 });
  expect([await rate.use('k'), (await rate.use('k')) > 0, (await rate.waitMs('k')) > 0]).toEqual([0, true, true]);
  expect((await admin.keys('{plank}:rate:*')).length).toBe(1);
  expect(await admin.keys('{plank}:lease:*')).toHaveLength(1);
});

test.each([
  ['plank_gateway', ['XADD', '{plank}:stream', '*', 'b', 'x']],
  ['plank_gateway', ['DEL', '{plank}:stream']],
  ['plank_gateway', ['HSET', '{plank}:meta', 'last', '9']],
  ['plank_gateway', ['GET', 'other']],
  ['plank_gateway', ['FLUSHALL']],
  ['plank_gateway', ['CONFIG', 'GET', '*']],
  ['plank_gateway', ['KEYS', '*']],
  ['plank_gateway', ['PUBLISH', 'other', 'x']],
  ['plank_gateway', ['EVAL', `return redis.call('xadd', KEYS[1], '*', 'b', 'x')`, '1', '{plank}:stream']],
  ['plank_listener', ['GET', '{plank}:once:a']],
  ['plank_listener', ['FLUSHALL']],
  ['plank_listener', ['SET', 'other', 'x']],
] as const)('%s may not send %j', async (user, [command, ...args]) => {
  const client = new Redis(as(user));
  try {
    await expect(client.call(command, ...args)).rejects.toThrow(/NOPERM|No permissions|ACL failure/i);
  } finally {
    client.disconnect();
  }
});
