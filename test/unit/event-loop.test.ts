// The event loop's lag: none while there is nothing to do, and what a busy moment held up, until it has been told.

import { Registry } from 'prom-client';
import { test } from 'vitest';
import { watchEventLoop } from '#shared/process/event-loop.ts';
import { until } from '../support/wait.ts';

test('is what a busy moment held up, once', async () => {
  const registry = new Registry();
  watchEventLoop(registry);
  const told = async (which: string) => {
    const text = await registry.getSingleMetricAsString(`plank_event_loop_lag_${which}_seconds`);
    return Number(/ (\S+)$/.exec(text)![1]) * 1_000;
  };
  const lag = async () => {
    const p99 = await told('p99');
    return { p99, max: await told('max') };
  };
  const busyUntil = performance.now() + 300;
  while (performance.now() < busyUntil);
  await until('it is told', async () => Math.min(...Object.values(await lag())) > 200, 5_000);
  // as soon as this machine is not busy itself
  await until('nothing is held up any more', async () => (await lag()).max < 50, 10_000);
});
