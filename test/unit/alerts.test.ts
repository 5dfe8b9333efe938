// The alert rules: Prometheus loads them, each fires in a test of its own (alerts.promtool.yml), and their metrics exist.

import { execFile } from 'node:child_process';
import { mkdtemp, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { promisify } from 'node:util';
import { beforeAll, describe, expect, test } from 'vitest';
import { findPromtool } from '#deploy/local/prometheus.ts';
import { readYaml } from '../support/deploy/manifests.ts';
import { knownSeries, misnamed, selectors } from '../support/deploy/promql.ts';

const run = promisify(execFile);
const root = join(import.meta.dirname, '../..');
const rulesFile = join(root, 'deploy/prometheus-rules.yml');
const testsFile = join(import.meta.dirname, 'alerts.promtool.yml');

interface Rule {
  alert: string;
  expr: string;
  for?: string;
  labels: { severity: string };
  annotations: { summary: string; description: string };
}
interface RuleTest {
  name: string;
  input_series: { series: string }[];
  promql_expr_test: { exp_samples: { labels: string }[] }[];
}

const rules: Rule[] = readYaml(rulesFile).groups.flatMap(({ rules }: { rules: Rule[] }) => rules);
const tests: RuleTest[] = readYaml(testsFile).tests;
const known = knownSeries();
const testsOf = (alert: string) => tests.filter(({ name }) => name === alert);
const samples = ({ promql_expr_test }: RuleTest) => promql_expr_test.flatMap(({ exp_samples }) => exp_samples);

describe('alert rules', () => {
  let promtool: string;
  beforeAll(async () => {
    promtool = await findPromtool();
  });

  test('promtool accepts the alert rules', async () => {
    const { stdout } = await run(promtool, ['check', 'rules', '--lint=all', '--lint-fatal', rulesFile]);
    expect(stdout).toContain(`SUCCESS: ${rules.length} rules found`);
  });

  test('each alert fires when it should, and only then', async () => {
    const { stdout } = await run(promtool, ['test', 'rules', testsFile]);
    expect(stdout).toContain('SUCCESS');
  }, 30_000);

  test('the configuration of docker-compose loads the alert rules, and promtool accepts it', async () => {
    const config = join(root, 'deploy/prometheus.yml');
    const { stdout } = await run(promtool, ['check', 'config', config]);
    expect(stdout).toContain(`SUCCESS: ${rules.length} rules found`);
    // the paths at which the container reads both
    const { services } = readYaml(join(root, 'docker-compose.yml'));
    for (const file of ['prometheus.yml', ...readYaml(config).rule_files])
      expect(services.prometheus.volumes).toContain(`./deploy/${file}:/etc/prometheus/${file}:ro`);
  });

  test('Kubernetes scrapes the jobs that the alert rules name', async () => {
    const { scrape_configs: jobs } = readYaml(join(root, 'deploy/kubernetes/monitoring/scrape-configs.yaml'));
    const inCompose = readYaml(join(root, 'deploy/prometheus.yml')).scrape_configs;
    const names = (configs: { job_name: string }[]) => new Set(configs.map(({ job_name }) => job_name));
    expect(names(jobs)).toEqual(names(inCompose));
    // Debian's promtool cannot look for pods; the rest it can check
    const folder = await mkdtemp(join(tmpdir(), 'plank-scrape-'));
    try {
      const file = join(folder, 'prometheus.yml');
      const checked = jobs.map(({ kubernetes_sd_configs: found, ...job }: { kubernetes_sd_configs: object[] }) => {
        expect(found).toEqual([{ role: 'pod' }]);
        return job;
      });
      await writeFile(file, JSON.stringify({ scrape_configs: checked }));
      await run(promtool, ['check', 'config', file]);
    } finally {
      await rm(folder, { recursive: true, force: true });
    }
  });
});

describe('each alert', () => {
  test('each alert has a name of its own', () => {
    expect(new Set(rules.map(({ alert }) => alert)).size).toBe(rules.length);
  });

  test.each(rules)('$alert fires in its own test, alone and not at once', ({ alert, labels: { severity } }) => {
    const [test, ...more] = testsOf(alert);
    expect(more).toEqual([]);
    const [before, after] = test!.promql_expr_test;
    expect(before!.exp_samples).toEqual([]);
    expect(after!.exp_samples).toHaveLength(1);
    expect(after!.exp_samples[0]!.labels).toContain(
      `alertname="${alert}", alertstate="firing", severity="${severity}"`,
    );
  });

  test.each(rules)('$alert asks for metrics that exist', ({ expr }) => {
    expect(misnamed(expr, known)).toEqual([]);
  });

  test.each(rules)('$alert tells an operator what to do', ({ alert, labels, annotations, ...rule }) => {
    expect(['critical', 'warning']).toContain(labels.severity);
    expect(annotations.description.length).toBeGreaterThan(60);
    expect(annotations.summary.length).toBeLessThan(100);
    // Prometheus renders a label that the alert lacks as an empty text
    const named = `${annotations.summary} ${annotations.description}`.matchAll(/\$labels\.(\w+)/g);
    const fired = samples(testsOf(alert)[0]!)[0]!.labels;
    for (const [, label] of named) expect(fired).toContain(`${label}="`);
    // one slow scrape must wake nobody: the rule has a wait of its own, or looks back over minutes
    expect(rule.for ?? /\[(\d+m)/.exec(rule.expr)?.[1]).toBeDefined();
  });
});

describe('tests of the alert rules', () => {
  test('the first rule test describes a healthy system, in which no alert fires', () => {
    const [healthy] = tests;
    expect(samples(healthy!)).toEqual([]);
    const there = new Set(healthy!.input_series.map(({ series }) => selectors(series)[0]!.metric));
    // an alert without data would be silent, too
    for (const { expr } of rules) for (const { metric } of selectors(expr)) expect(there).toContain(metric);
  });

  test('the rule tests feed series that exist, with their labels', () => {
    for (const { input_series } of tests)
      for (const { series } of input_series) expect(misnamed(series, known)).toEqual([]);
  });

  test('the check of series notices a metric or a label that does not exist', () => {
    expect(misnamed('sum(rate(plank_events_total{node="a"}[5m])) by (node) > 1', known)).toEqual([]);
    expect(misnamed('rate(plank_evnts_total[5m])', known)).toEqual(['no metric plank_evnts_total']);
    expect(misnamed('plank_canary_seconds > 1', known)).toEqual(['no metric plank_canary_seconds']);
    expect(misnamed('plank_connections{table="a"}', known)).toEqual(['plank_connections has no table']);
    expect(misnamed('sum by (reason) (plank_term)', known)).toEqual(['none of them has reason']);
  });
});
