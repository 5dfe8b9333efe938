// Metrics: METRICS.md's table equals what the processes declare, and no label can name a client or a row.

import { readFile } from 'node:fs/promises';
import { type Metric, Registry } from 'prom-client';
import { describe, expect, test } from 'vitest';
import { createRegistry, gatewayMetrics, httpMetrics, listenerMetrics } from '#shared/process/metrics.ts';

/** the names that labels may have: each has a bounded set of values */
const labels = ['transport', 'code', 'table', 'stage', 'result', 'reason', 'method', 'route', 'status'];

type Declared = Metric & { name: string; help: string; labelNames: string[] };

function declaredBy(declare: (registry: Registry) => unknown): Declared[] {
  const registry = new Registry();
  declare(registry);
  return registry.getMetricsAsArray() as unknown as Declared[];
}

const declared = {
  listener: declaredBy(listenerMetrics),
  gateway: [...declaredBy(gatewayMetrics), ...declaredBy(httpMetrics)],
};

describe('metrics', () => {
  test('METRICS.md lists the metrics that the processes declare', async () => {
    const text = await readFile(new URL('../../METRICS.md', import.meta.url), 'utf8');
    for (const [by, metrics] of Object.entries(declared)) {
      const block = new RegExp(`<!-- ${by} -->\n(.*)<!-- /${by} -->`, 's').exec(text)?.[1]?.trim();
      const expected = table(metrics);
      expect(block, `between the marks of ${by} METRICS.md should say:\n\n${expected}\n`).toBe(expected);
    }
  });

  test('every process has the default metrics that METRICS.md names', async () => {
    const text = await readFile(new URL('../../METRICS.md', import.meta.url), 'utf8');
    const named = text
      .slice(text.indexOf('## Every process'))
      .match(/`(process|nodejs)_\w+`/g)!
      .map((name) => name.slice(1, -1));
    const known = createRegistry('test')
      .getMetricsAsArray()
      .map(({ name }) => name);
    expect(known).toEqual(expect.arrayContaining(named));
    expect(named.length).toBeGreaterThan(5);
  });

  test('each metric has its own name, in the units of Prometheus', () => {
    const metrics = Object.values(declared).flat();
    expect(new Set(metrics.map(({ name }) => name)).size).toBe(metrics.length);
    for (const { name, constructor } of metrics) {
      expect(name).toMatch(/^plank_[a-z_]+$/);
      expect(name.endsWith('_total'), name).toBe(constructor.name === 'Counter');
      expect(name).not.toMatch(/_(ms|millis|kb|mb)(_|$)/);
    }
  });

  test('each label has few values', () => {
    for (const { name, labelNames } of Object.values(declared).flat())
      for (const label of labelNames) expect(labels, `${name}{${label}}`).toContain(label);
  });

  test('a gauge whose value is unknown is absent', async () => {
    const registry = new Registry();
    const metrics = listenerMetrics(registry);
    expect(await registry.getSingleMetricAsString('plank_outbox_depth')).not.toMatch(/^plank_outbox_depth/m);
    metrics.outboxDepth.set(3);
    expect(await registry.getSingleMetricAsString('plank_outbox_depth')).toMatch(/^plank_outbox_depth 3$/m);
    metrics.outboxDepth.remove();
    expect(await registry.getSingleMetricAsString('plank_outbox_depth')).not.toMatch(/^plank_outbox_depth/m);
  });
});

function table(metrics: readonly Declared[]): string {
  const rows = metrics.map(({ name, labelNames, constructor, help }) => {
    const type = constructor.name.includes('Gauge') ? 'gauge' : constructor.name.toLowerCase();
    const shown = labelNames.filter((label) => label !== 'le');
    return [`\`${name}${shown.length > 0 ? `{${shown.join(',')}}` : ''}\``, type, help];
  });
  const lines = [['metric', 'type', 'what it is'], ['---', '---', '---'], ...rows];
  return lines.map((cells) => `| ${cells.map((cell) => cell.replaceAll('|', '\\|')).join(' | ')} |`).join('\n');
}
