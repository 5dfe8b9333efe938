// Owns what tests ask a running listener or gateway over HTTP: its health, its metrics, who leads.

import { onTestFailed } from 'vitest';
import type { ClusterNode } from '#deploy/local/cluster.ts';
import { until } from '../wait.ts';

export interface NodeHealth {
  http: number;
  status?: string;
  connections?: number;
  state?: string;
  changes?: string;
  ready?: boolean;
}

/** What `path` says; http 0 where nobody answers within a second and a half. */
export async function health(node: ClusterNode, path = '/health'): Promise<NodeHealth> {
  try {
    const response = await fetch(node.url + path, { signal: AbortSignal.timeout(1_500) });
    return { http: response.status, ...((await response.json()) as object) };
  } catch {
    return { http: 0 };
  }
}

/** The sum of a metric over its labels, or of those series whose labels contain `labels`. */
export async function metric(node: ClusterNode, name: string, labels = ''): Promise<number> {
  const text = await (await fetch(`${node.url}/metrics`, { signal: AbortSignal.timeout(5_000) })).text();
  const lines = text.split('\n').filter((line) => /^[\w:]+/.exec(line)?.[0] === name && line.includes(labels));
  if (lines.length === 0) throw new Error(`${node.name} has no metric ${name}`);
  return lines.reduce((sum, line) => sum + Number(line.slice(line.lastIndexOf(' ') + 1)), 0);
}

/** The one of `nodes` that leads; waits for it. */
export async function leader(nodes: readonly ClusterNode[], deadlineMs = 10_000): Promise<ClusterNode> {
  let found: ClusterNode | undefined;
  const look = async () => {
    for (const node of nodes) if (node.running && (await health(node)).state === 'leading') found = node;
    return found !== undefined;
  };
  await until('a listener leads', look, deadlineMs);
  return found!;
}

/** For `beforeEach`: a test that fails shows what its nodes said last. */
export function tellOnFailure(nodes: () => readonly ClusterNode[]): void {
  onTestFailed(() => {
    for (const node of nodes())
      console.log(`${node.name}, ${node.running ? 'running' : 'ended'}:\n${node.logTail(15)}`);
  });
}
