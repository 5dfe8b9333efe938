/**
 * Measures how late the event loop is. Everything that is due in this process waits that long, for example a change on
 * its way to sockets. A timer checks 20 times a second. Node's own monitor (prom-client's
 * nodejs_eventloop_lag_p99_seconds) is not used, for two reasons. It checks 100 times a second, which wakes an idle
 * process more often than everything else together. And it counts the interval between two checks as lag.
 */
import { createHistogram } from 'node:perf_hooks';
import { Gauge, type Registry } from 'prom-client';

const everyMs = 50;

export function watchEventLoop(registry: Registry): void {
  const lags = createHistogram();
  let due = performance.now() + everyMs;
  const timer = setTimeout(() => {
    const now = performance.now();
    lags.record(Math.max(1, Math.round((now - due) * 1e6)));
    due = now + everyMs;
    timer.refresh();
  }, everyMs).unref();
  const max = new Gauge({
    name: 'plank_event_loop_lag_max_seconds',
    help: 'How late the event loop was at most since the last scrape',
    registers: [],
  });
  const p99 = new Gauge({
    name: 'plank_event_loop_lag_p99_seconds',
    help: 'How late the event loop was 99 times of 100 at most, since the last scrape; above 0.1 the process has too much to do',
    registers: [],
    collect() {
      if (lags.count === 0) return;
      this.set(lags.percentile(99) / 1e9);
      max.set(lags.max / 1e9);
      lags.reset();
    },
  });
  registry.registerMetric(p99);
  registry.registerMetric(max);
}
