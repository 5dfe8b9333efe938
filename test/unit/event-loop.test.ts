// The event loop's lag: none while there is nothing to do, and what a busy moment held up, until it has been told.

import { setTimeout as sleep } from 'node:timers/promises';
import { Registry } from 'prom-client';
import { expect, it } from 'vitest';
import { watchEventLoop } from '#shared/event-loop.ts';
import { until } from '../support/wait.ts';

it('is what a busy moment held up, once', async () => {
  const registry = new Registry();
  watchEventLoop(registry);
  const maxMs = async () => {
    const text = await registry.getSingleMetricAsString('plank_event_loop_lag_p99_seconds');
    const worst = await registry.getSingleMetricAsString('plank_event_loop_lag_max_seconds');
    return [text, worst].map((one) => Number(/ (\S+)$/.exec(one)![1]) * 1_000);
  };
  await sleep(120);
  const busyUntil = performance.now() + 300;
  while (performance.now() < busyUntil);
  await sleep(20);
  const [p99, worst] = await maxMs();
  expect(worst).toBeGreaterThan(200);
  expect(p99).toBeGreaterThan(200);
  // as long as this machine is not busy itself
  await until('nothing is held up any more', async () => (await sleep(120), (await maxMs())[1]! < 50), 10_000);
});
