// One contract for shared state in memory and in Redis, and what each promises when Redis fails.

import { randomBytes } from 'node:crypto';
import { Redis } from 'ioredis';
import { pino } from 'pino';
import { afterEach, beforeEach, describe, expect, test } from 'vitest';
import { LocalState, type Seat, type SharedState } from '#shared/bus/shared-state.ts';
import { RedisState } from '#shared/bus/shared-state-redis.ts';
import { redisUrl } from '../support/servers/servers.ts';
import { TcpProxy } from '../support/stage/tcp-proxy.ts';
import { until } from '../support/wait.ts';

const log = pino({ level: 'silent' });

async function twoInRedis(url: string) {
  const options = { name: randomBytes(6).toString('hex'), log };
  const states = { here: new RedisState(url, options), there: new RedisState(url, options) };
  for (const state of Object.values(states)) await answers(state);
  return { ...states, name: options.name };
}

const answers = (state: SharedState) =>
  until(
    'shared state answers',
    () =>
      state.keep('x', '', 1).then(
        () => true,
        () => false,
      ),
    5_000,
  );

const kinds: Record<string, () => Promise<{ here: SharedState; there: SharedState }>> = {
  'in memory': async () => {
    const state = new LocalState();
    return { here: state, there: state };
  },
  'in Redis': async () => twoInRedis(await redisUrl()),
};

describe.each(Object.entries(kinds))('shared state %s', (_name, open) => {
  let here: SharedState;
  let there: SharedState;

  beforeEach(async () => {
    ({ here, there } = await open());
  });
  afterEach(async () => {
    await Promise.all([here.stop(), there.stop()]);
  });

  test('a kept text is taken once, anywhere', async () => {
    await here.keep('a', 'text', 5_000);
    const taken = await Promise.all([there.take('a'), here.take('a'), there.take('a')]);
    expect(taken.filter((text) => text !== null)).toEqual(['text']);
    expect(await here.take('a')).toBeNull();
    expect(await here.take('never kept')).toBeNull();
  });

  test('a kept text expires', async () => {
    await here.keep('a', 'text', 30);
    await until(
      'it is gone',
      async () => {
        await here.keep('b', 'text', 5_000);
        return (await there.take('a')) === null;
      },
      2_000,
    );
  });

  test('seats are limited over all processes, and free again when left', async () => {
    const seats = await Promise.all([here.sit('ada', 3), there.sit('ada', 3), here.sit('ada', 3), there.sit('ada', 3)]);
    expect(seats.filter((seat) => seat === null)).toHaveLength(1);
    expect(await here.sit('bob', 3)).not.toBeNull();
    const seat = seats.find((one): one is Seat => one !== null)!;
    seat.leave();
    seat.leave();
    await until('a seat is free', async () => (await there.sit('ada', 3)) !== null, 2_000);
    expect(await here.sit('ada', 3)).toBeNull();
  });

  test('uses are limited over all processes, by key, and a look counts nothing', async () => {
    const [a, b] = [here.rate('r', { points: 3, seconds: 60 }), there.rate('r', { points: 3, seconds: 60 })];
    for (let i = 0; i < 5; i++) expect(await a.waitMs('k')).toBe(0);
    const other = here === there ? a : b;
    expect([await a.use('k'), await other.use('k'), await a.use('k')]).toEqual([0, 0, 0]);
    const wait = await other.use('k');
    expect(wait).toBeGreaterThan(50_000);
    expect(wait).toBeLessThanOrEqual(60_000);
    expect(await a.waitMs('k')).toBeGreaterThan(50_000);
    expect(await a.use('another')).toBe(0);
  });
});

describe('shared state in Redis', () => {
  test('the seats of a process without a lease are free', async () => {
    const url = await redisUrl();
    const { here, there, name } = await twoInRedis(url);
    const redis = new Redis(url);
    await Promise.all([here.sit('ada', 2), here.sit('ada', 2)]);
    expect(await there.sit('ada', 2)).toBeNull();
    // as if the process had been killed: its lease expires, and nothing frees its seats
    const leases = await redis.keys(`{${name}}:lease:*`);
    expect(leases).toHaveLength(2);
    const members = await redis.smembers(`{${name}}:seats:ada`);
    const gone = members[0]!.split('/')[0]!;
    await redis.del(`{${name}}:lease:${gone}`);
    expect(await there.sit('ada', 2)).not.toBeNull();
    expect(await redis.smembers(`{${name}}:seats:ada`)).toHaveLength(1);
    redis.disconnect();
    await Promise.all([here.stop(), there.stop()]);
  });

  test('seats survive a Redis that lost everything', async () => {
    const url = await redisUrl();
    const { here, there, name } = await twoInRedis(url);
    const redis = new Redis(url);
    await Promise.all([here.sit('ada', 2), there.sit('ada', 2)]);
    const keys = await redis.keys(`{${name}}:*`);
    await redis.del(keys);
    await until('both are registered again', async () => (await redis.scard(`{${name}}:seats:ada`)) === 2, 15_000);
    expect(await here.sit('ada', 2)).toBeNull();
    redis.disconnect();
    await Promise.all([here.stop(), there.stop()]);
  });

  test('a silent Redis delays nobody for long: each process counts alone', async () => {
    const url = await redisUrl();
    const proxy = await TcpProxy.start(url);
    const { here, there } = await twoInRedis(proxy.through(url));
    await here.sit('ada', 2);
    const rate = here.rate('r', { points: 2, seconds: 60 });
    await rate.use('k');
    proxy.blackhole();
    const started = performance.now();
    expect(await here.sit('ada', 2)).not.toBeNull();
    expect(await here.sit('ada', 2)).toBeNull();
    expect([await rate.use('k'), await rate.use('k'), (await rate.use('k')) > 0]).toEqual([0, 0, true]);
    expect(performance.now() - started).toBeLessThan(1_500);
    await expect(here.keep('a', 'text', 5_000)).rejects.toThrow();
    await expect(here.take('a')).rejects.toThrow();
    await proxy.stop();
    await Promise.all([here.stop(), there.stop()]);
  });
});
