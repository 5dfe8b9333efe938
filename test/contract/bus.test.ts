// One contract for both buses, within a process and through Redis, and for the roster on top of them.

import { randomBytes } from 'node:crypto';
import { pino } from 'pino';
import { afterEach, beforeEach, describe, expect, test } from 'vitest';
import { type Bus, LocalBus } from '#shared/bus/bus.ts';
import { RedisBus } from '#shared/bus/bus-redis.ts';
import { Roster } from '#shared/bus/roster.ts';
import { redisUrl } from '../support/servers/servers.ts';
import { TcpProxy } from '../support/stage/tcp-proxy.ts';
import { until } from '../support/wait.ts';

const log = pino({ level: 'silent' });

const buses: Record<string, () => Promise<{ here: Bus; there: Bus }>> = {
  'within a process': async () => {
    const bus = new LocalBus();
    return { here: bus, there: bus };
  },
  'through Redis': async () => {
    const options = { name: randomBytes(6).toString('hex'), log };
    const url = await redisUrl();
    return { here: new RedisBus(url, options), there: new RedisBus(url, options) };
  },
};

describe.each(Object.entries(buses))('a bus %s', (_name, open) => {
  let here: Bus;
  let there: Bus;
  const rosters: Roster[] = [];

  beforeEach(async () => {
    ({ here, there } = await open());
    // wait until each receives from each
    const received = new Set<unknown>();
    const offs = [here.listen(() => received.add(here)), there.listen(() => received.add(there))];
    await until(
      'both are connected',
      () => {
        here.send({});
        there.send({});
        return received.has(here) && received.has(there);
      },
      5_000,
    );
    for (const off of offs) off();
  });

  afterEach(async () => {
    for (const roster of rosters.splice(0)) await roster.stop();
    await Promise.all([here.stop(), there.stop()]);
  });

  function roster(bus: Bus, node: string, role: 'gateway' | 'listener' = 'gateway'): Roster {
    const made = new Roster({ bus, node, role, version: '1.2.3', state: () => ({ of: node }), log });
    rosters.push(made);
    made.start();
    return made;
  }

  test('a message reaches every listener unchanged', async () => {
    const received: { text?: string }[] = [];
    there.listen((message) => received.push(message as { text?: string }));
    here.send({ text: 'größer 🦉', list: [1, null, { deep: true }] });
    const texts = () => received.filter(({ text }) => text !== undefined);
    await until('the message arrives', () => texts().length > 0, 5_000);
    expect(texts()).toEqual([{ text: 'größer 🦉', list: [1, null, { deep: true }] }]);
  });

  test('a listener that has left receives nothing', async () => {
    const received: unknown[] = [];
    const others: unknown[] = [];
    const off = there.listen((message) => received.push(message));
    off();
    there.listen((message) => others.push(message));
    here.send({ number: 1 });
    await until('the other listener has it', () => others.length > 0, 5_000);
    expect(received).toEqual([]);
  });

  test('a roster names every process that is there, and drops one at once that leaves', async () => {
    const one = roster(here, 'gateway-10');
    const two = roster(there, 'gateway-2');
    roster(there, 'listener-1', 'listener');
    await until('everybody is known', () => one.nodes().length === 3 && two.nodes().length === 3, 5_000);
    expect(one.nodes().map(({ node, role, version, state }) => ({ node, role, version, state }))).toEqual([
      { node: 'gateway-2', role: 'gateway', version: '1.2.3', state: { of: 'gateway-2' } },
      { node: 'gateway-10', role: 'gateway', version: '1.2.3', state: { of: 'gateway-10' } },
      { node: 'listener-1', role: 'listener', version: '1.2.3', state: { of: 'listener-1' } },
    ]);
    await two.stop();
    await until('it has gone', () => one.nodes().length === 2, 1_000);
  });

  test('a question reaches one process, or all, and the answers come back', async () => {
    const one = roster(here, 'gateway-1');
    const two = roster(there, 'gateway-2');
    await until('both know each other', () => one.nodes().length === 2 && two.nodes().length === 2, 5_000);
    for (const target of [one, two]) {
      target.handle('double', ({ value }) => (value as number) * 2);
      target.handle('fail', async () => {
        throw new Error('not today');
      });
    }
    expect(await one.ask(two.instance, 'double', { value: 21 })).toEqual([
      { instance: two.instance, node: 'gateway-2', body: 42 },
    ]);
    expect(
      (await one.ask(null, 'double', { value: 2 })).map(({ node, body }) => `${node}: ${String(body)}`).sort(),
    ).toEqual(['gateway-1: 4', 'gateway-2: 4']);
    expect(await one.ask(two.instance, 'fail')).toMatchObject([{ error: 'not today' }]);
    expect(await one.ask(two.instance, 'nonsense')).toMatchObject([{ error: 'a gateway knows nothing of nonsense' }]);
  });

  test('a question does not wait for a process that does not answer', async () => {
    const one = roster(here, 'gateway-1');
    const started = performance.now();
    expect(await one.ask('nobody', 'double', {}, 100)).toEqual([]);
    expect(performance.now() - started).toBeLessThan(1_000);
  });

  test('a roster survives messages that are not its own', async () => {
    const one = roster(here, 'gateway-1');
    for (const message of [{ type: 'status' }, { type: 'answer', id: 7 }, { type: 'ask' }, { type: 'later' }, []])
      there.send(message);
    const two = roster(there, 'gateway-2');
    await until('the next message arrives', () => one.nodes().some(({ node }) => node === 'gateway-2'), 5_000);
    expect(two.nodes().every(({ node }) => node.startsWith('gateway-'))).toBe(true);
  });
});

describe('a bus whose Redis', () => {
  let proxy: TcpProxy;
  let bus: RedisBus;
  let received: number;

  const works = () => {
    bus.send({});
    return received > 0;
  };

  beforeEach(async () => {
    received = 0;
    proxy = await TcpProxy.start(await redisUrl());
    bus = new RedisBus(proxy.through(await redisUrl()), { name: randomBytes(6).toString('hex'), log });
    bus.listen(() => received++);
    await until('it works', works, 5_000);
  });

  afterEach(async () => {
    await bus.stop();
    await proxy.stop();
  });

  test('a bus whose Redis falls silent works again when Redis does', async () => {
    proxy.blackhole();
    received = 0;
    const before = proxy.accepted;
    await until(
      'both connections are given up',
      () => {
        works();
        return proxy.accepted >= before + 2;
      },
      10_000,
    );
    proxy.pass();
    await until('it works again', works, 5_000);
  });

  // an unhandled rejection would end the run
  test('a bus whose connections end at SUBSCRIBE tries again, and works again when Redis does', async () => {
    const before = proxy.accepted;
    proxy.cutAt('subscribe');
    await until('it has subscribed again and again', () => proxy.accepted >= before + 6, 10_000);
    received = 0;
    proxy.pass();
    await until('it works again', works, 5_000);
  });
});
