// Owns the Grafana dashboard as tests read it, and the expressions in it.
import { readFileSync } from 'node:fs';

export interface Panel {
  id: number;
  type: string;
  title: string;
  description: string;
  datasource: object;
  gridPos: { x: number; y: number; w: number; h: number };
  /** a row has none */
  targets?: { expr: string; datasource: object }[];
  fieldConfig: { defaults: { unit?: string } };
}

export interface Dashboard {
  panels: Panel[];
  annotations: { list: { name: string; expr: string }[] };
  templating: { list: { name: string; definition?: string }[] };
}

export function readDashboard(): Dashboard {
  const file = new URL('../../../deploy/grafana/dashboards/plank.json', import.meta.url);
  return JSON.parse(readFileSync(file, 'utf8')) as Dashboard;
}

/** Every expression, with the title of its panel. Grafana's variables are not replaced. */
export function expressions({ panels, annotations }: Dashboard): { title: string; expr: string }[] {
  return [
    ...panels.flatMap(({ title, targets = [] }) => targets.map(({ expr }) => ({ title, expr }))),
    ...annotations.list.map(({ name, expr }) => ({ title: name, expr })),
  ];
}
