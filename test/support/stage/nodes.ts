// Owns what tests read from a running listener or gateway over HTTP: its health, its metrics, and who leads.

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

/** The answer of `path`. `http` is 0 without an answer within 1.5 s. */
export async function health(node: ClusterNode, path = '/health'): Promise<NodeHealth> {
  try {
    const response = await fetch(node.url + path, { signal: AbortSignal.timeout(1_500) });
    return { http: response.status, ...((await response.json()) as object) };
  } catch {
    return { http: 0 };
  }
}

/** The sum of a metric over its series, or over those whose labels contain `labels`. */
export async function metric(node: ClusterNode, name: string, labels = ''): Promise<number> {
  const text = await (await fetch(`${node.url}/metrics`, { signal: AbortSignal.timeout(5_000) })).text();
  const lines = text.split('\n').filter((line) => /^[\w:]+/.exec(line)?.[0] === name && line.includes(labels));
  if (lines.length === 0) throw new Error(`${node.name} has no metric ${name}`);
  return lines.reduce((sum, line) => sum + Number(line.slice(line.lastIndexOf(' ') + 1)), 0);
}

/** Waits until one of `nodes` leads. Resolves with that node. */
export async function leader(nodes: readonly ClusterNode[], deadlineMs = 10_000): Promise<ClusterNode> {
  let found: ClusterNode | undefined;
  const look = async () => {
    for (const node of nodes) if (node.running && (await health(node)).state === 'leading') found = node;
    return found !== undefined;
  };
  await until('a listener leads', look, deadlineMs);
  return found!;
}

/** For `beforeEach`: a test that fails shows the last log lines of its nodes. */
export function tellOnFailure(nodes: () => readonly ClusterNode[]): void {
  onTestFailed(() => {
    for (const node of nodes())
      console.log(`${node.name}, ${node.running ? 'running' : 'ended'}:\n${node.logTail(15)}`);
  });
}
