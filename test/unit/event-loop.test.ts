// The event loop's lag: none while idle, and after a busy moment its length, until a scrape has reported it.

import { Registry } from 'prom-client';
import { test } from 'vitest';
import { watchEventLoop } from '#shared/process/event-loop.ts';
import { until } from '../support/wait.ts';

test('the lag is as long as a busy moment, and is reported once', async () => {
  const registry = new Registry();
  watchEventLoop(registry);
  const lagOf = async (which: string) => {
    const text = await registry.getSingleMetricAsString(`plank_event_loop_lag_${which}_seconds`);
    return Number(/ (\S+)$/.exec(text)![1]) * 1_000;
  };
  const lag = async () => {
    const p99 = await lagOf('p99');
    return { p99, max: await lagOf('max') };
  };
  const busyUntil = performance.now() + 300;
  while (performance.now() < busyUntil);
  await until('the lag is reported', async () => Math.min(...Object.values(await lag())) > 200, 5_000);
  // other work on this machine may take a while
  await until('nothing is held up any more', async () => (await lag()).max < 50, 10_000);
});
