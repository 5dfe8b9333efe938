// Owns as much PromQL as a test needs: whether the metrics and labels of an expression exist. Prometheus finds nothing for a
// misspelt one and reports no error, so that a chart stays empty or an alert silent.
import { Histogram, type Metric, Registry, Summary } from 'prom-client';
import { createRegistry, gatewayMetrics, httpMetrics, listenerMetrics } from '#shared/process/metrics.ts';

const words = new Set(
  'and or unless by without on ignoring group_left group_right offset bool sum min max avg count topk quantile'.split(
    ' ',
  ),
);
/** Labels of every series: createRegistry adds the first, Prometheus the others. */
const everywhere = ['node', 'job', 'instance'];

interface Selector {
  metric: string;
  /** the labels that are matched */
  labels: string[];
}

/** Every mention of a metric in an expression, which may contain Grafana's variables. */
export function selectors(expression: string): Selector[] {
  const plain = expression
    .replace(/"(?:[^"\\]|\\.)*"/g, '""')
    .replace(/\[[^\]]*\]/g, '')
    .replace(/\b(by|without|on|ignoring|group_left|group_right)\s*\([^)]*\)/g, '');
  const names = /(?<![\w:.])([a-z_:][\w:]*)(?![\w:]|\s*\()(?:\s*\{([^}]*)\})?/gi;
  return [...plain.matchAll(names)]
    .filter(([, name = '']) => !words.has(name))
    .map(([, metric = '', matchers = '']) => ({
      metric,
      labels: [...matchers.matchAll(/(\w+)\s*(?:=~|!~|!=|=)/g)].map(([, label = '']) => label),
    }));
}

/** The labels by which an expression groups or joins its results. */
function grouping(expression: string): string[] {
  const lists = expression.matchAll(/\b(?:by|without|on|ignoring|group_left|group_right)\s*\(([^)]*)\)/g);
  return [...lists].flatMap(([, list = '']) => list.split(',').map((label) => label.trim())).filter(Boolean);
}

/** The series of Plank's processes and of Prometheus itself: name → labels. */
export function knownSeries(): Map<string, string[]> {
  const registry = createRegistry('test');
  listenerMetrics(registry);
  const gateway = new Registry();
  gatewayMetrics(gateway);
  httpMetrics(gateway);
  const known = new Map<string, string[]>([
    ['up', everywhere],
    ['ALERTS', [...everywhere, 'alertname', 'alertstate', 'severity']],
  ]);
  for (const metric of [...registry.getMetricsAsArray(), ...gateway.getMetricsAsArray()]) {
    const { name, labelNames } = metric as unknown as { name: string; labelNames: string[] };
    for (const [suffix, more] of suffixes(metric as unknown as Metric)) {
      known.set(name + suffix, [...everywhere, ...labelNames.filter((label) => label !== 'le'), ...more]);
    }
  }
  return known;
}

function suffixes(metric: Metric): [suffix: string, labels: string[]][] {
  const own = metric instanceof Histogram ? '_bucket' : '';
  const label = metric instanceof Histogram ? ['le'] : metric instanceof Summary ? ['quantile'] : [];
  const totals = label.length > 0 ? ['_sum', '_count'] : [];
  return [[own, label], ...totals.map((suffix): [string, string[]] => [suffix, []])];
}

/** What is wrong with the names in an expression, in words. Empty where all are known. */
export function misnamed(expression: string, known: Map<string, string[]>): string[] {
  const used = selectors(expression);
  if (used.length === 0) return ['it asks for no metric'];
  const unknown = used.filter(({ metric }) => !known.has(metric)).map(({ metric }) => `no metric ${metric}`);
  const matched = used.flatMap(({ metric, labels }) =>
    labels.filter((label) => known.get(metric)?.includes(label) === false).map((label) => `${metric} has no ${label}`),
  );
  const all = new Set(used.flatMap(({ metric }) => known.get(metric) ?? []));
  const grouped = grouping(expression).filter((label) => !all.has(label));
  return [...unknown, ...matched, ...grouped.map((label) => `none of them has ${label}`)];
}
