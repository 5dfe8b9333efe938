// The Grafana dashboard: its metrics exist, its grid has no holes, and docker-compose starts it.

import { readFileSync } from 'node:fs';
import { join } from 'node:path';
import { describe, expect, test } from 'vitest';
import { expressions, type Panel, readDashboard } from '../support/deploy/dashboard.ts';
import { readYaml } from '../support/deploy/manifests.ts';
import { knownSeries, misnamed } from '../support/deploy/promql.ts';

const root = join(import.meta.dirname, '../..');
const dashboard = readDashboard();
const rows = dashboard.panels.filter(({ type }) => type === 'row');
const panels = dashboard.panels.filter(({ type }) => type !== 'row');
const known = knownSeries();

describe('the dashboard', () => {
  test('the dashboard answers at a glance, then explains', () => {
    expect(rows.map(({ title }) => title)).toEqual([
      'At a glance',
      'Connections per replica',
      'Latency by stage',
      'Outbox and drain',
      'Redis',
      'Catching up, resuming, starting over',
      'REST',
      'Processes',
    ]);
    const first = panels.filter(({ gridPos }) => gridPos.y < rows[1]!.gridPos.y).map(({ title }) => title);
    expect(first).toEqual(
      expect.arrayContaining([
        'Gateways',
        'Leader',
        'Connections',
        'Changes',
        'Deliveries',
        'Canaries missed',
        'Alerts',
      ]),
    );
  });

  test.each(expressions(dashboard))('$title asks for metrics that exist: $expr', ({ expr }) => {
    expect(misnamed(expr, known)).toEqual([]);
  });

  test.each(panels)('$title describes itself, has a unit, and queries the chosen Prometheus', (panel) => {
    expect(panel.description.length).toBeGreaterThan(20);
    expect(panel.datasource).toEqual({ type: 'prometheus', uid: '${datasource}' });
    expect(panel.targets!.length).toBeGreaterThan(0);
    for (const { datasource } of panel.targets!) expect(datasource).toEqual(panel.datasource);
    if (panel.type === 'timeseries') expect(panel.fieldConfig.defaults.unit).toBeTypeOf('string');
  });

  test('every panel has its own title and id', () => {
    for (const key of ['id', 'title'] as const) {
      const values = dashboard.panels.map((panel) => panel[key]);
      expect(new Set(values).size).toBe(values.length);
    }
  });

  test('the panels cover the grid: no panel lies over another, and no line has a hole', () => {
    const cells = new Set<string>();
    for (const { title, gridPos } of dashboard.panels) {
      for (const cell of cellsOf(gridPos)) {
        expect(cells, title).not.toContain(cell);
        cells.add(cell);
      }
    }
    const height = Math.max(...dashboard.panels.map(({ gridPos }) => gridPos.y + gridPos.h));
    expect(cells.size).toBe(24 * height);
  });

  test('an operator can narrow the dashboard to some replicas', () => {
    const variable = dashboard.templating.list.find(({ name }) => name === 'node')!;
    expect(variable).toMatchObject({ multi: true, includeAll: true });
    expect(misnamed(/label_values\((.*), node\)/.exec(variable.definition!)![1]!, known)).toEqual([]);
    const narrowed = expressions(dashboard).filter(({ expr }) => expr.includes('node=~"$node"'));
    expect(narrowed.length).toBeGreaterThan(expressions(dashboard).length / 3);
  });
});

describe('docker-compose', () => {
  const compose = readYaml(join(root, 'docker-compose.yml'));
  const { grafana, prometheus } = compose.services;

  test('docker-compose starts Grafana with --profile observability only, and Prometheus always', () => {
    expect(grafana.profiles).toEqual(['observability']);
    expect(grafana.image).toMatch(/^grafana\/grafana:\d+\.\d+\.\d+$/);
    expect(prometheus).not.toHaveProperty('profiles');
  });

  test('docker-compose keeps Grafana on this machine, behind a password', () => {
    expect(grafana.ports).toEqual(['${GRAFANA_ADDRESS:-127.0.0.1}:${GRAFANA_PORT:-3000}:3000']);
    expect(grafana.environment.GF_AUTH_ANONYMOUS_ENABLED).toBe('false');
    const example = readFileSync(join(root, '.env.example'), 'utf8');
    for (const name of ['GRAFANA_ADDRESS', 'GRAFANA_PORT', 'GRAFANA_PASSWORD']) {
      expect(example).toMatch(new RegExp(`^${name}=`, 'm'));
      expect(JSON.stringify(grafana)).toContain(`\${${name}:-`);
    }
  });

  test('docker-compose gives Grafana the dashboard and the Prometheus of the same network', () => {
    const mounted = (inside: string) =>
      grafana.volumes.map((volume: string) => volume.split(':')).find(([, path]: string[]) => path === inside)?.[0];
    const [datasource] = readYaml(
      join(root, mounted('/etc/grafana/provisioning/datasources'), 'prometheus.yml'),
    ).datasources;
    expect(datasource).toMatchObject({ type: 'prometheus', url: 'http://prometheus:9090', isDefault: true });
    const [provider] = readYaml(join(root, mounted('/etc/grafana/provisioning/dashboards'), 'plank.yml')).providers;
    const folder = mounted(provider.options.path);
    expect(JSON.parse(readFileSync(join(root, folder, 'plank.json'), 'utf8'))).toEqual(dashboard);
    expect(grafana.environment.GF_DASHBOARDS_DEFAULT_HOME_DASHBOARD_PATH).toBe(`${provider.options.path}/plank.json`);
    expect(prometheus.networks).toEqual(expect.arrayContaining(grafana.networks));
    expect(grafana.networks).not.toContain('data');
  });
});

function cellsOf({ x, y, w, h }: Panel['gridPos']): string[] {
  return Array.from({ length: w * h }, (_, index) => `${x + (index % w)},${y + Math.floor(index / w)}`);
}
