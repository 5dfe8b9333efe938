// What is made of the reports of other processes, also of processes of another version.

import { expect, test } from 'vitest';
import { gatewaysIn, leaderIn } from '#shared/bus/node-state.ts';
import type { NodeStatus } from '#shared/bus/roster.ts';

const gateway = {
  at: 1,
  seq: 7,
  passed: 7,
  delivered: 7,
  lag: null,
  queuedBytes: 0,
  slow: 0,
  rss: 1,
  ready: true,
  draining: false,
  connections: 3,
  limit: 10,
  moving: 0,
  changes: 'tailing',
  position: 'e1.7',
  canaryMs: null,
  canaryLate: false,
  freshMs: 10,
  staleReason: null,
};
const listener = { state: 'leading', term: 4, headSeq: 7, epoch: 1, owedMs: 0, canaryEveryMs: 5_000 };

const node = (name: string, role: NodeStatus['role'], state: Record<string, unknown>): NodeStatus => ({
  instance: name,
  node: name,
  role,
  version: '1',
  startedAt: 0,
  state,
});

test('gateways count by what they report; those whose report has another form do not, and listeners never', () => {
  const nodes = [
    node('known', 'gateway', gateway),
    node('newer', 'gateway', { ...gateway, tiers: 2 }),
    node('other', 'gateway', { ...gateway, connections: { websocket: 3 } }),
    node('listener', 'listener', listener),
  ];
  expect(gatewaysIn(nodes).map(({ instance, state }) => [instance, state.connections])).toEqual([
    ['known', 3],
    ['newer', 3],
  ]);
});

test('the leader is the listener that leads; one that stands by, or has another form of report, is none', () => {
  const standby = { ...listener, state: 'standby', term: null, headSeq: null, epoch: null, owedMs: null };
  const nodes = [
    node('standby', 'listener', { ...standby, canaryEveryMs: null }),
    node('other', 'listener', { state: 'leading', term: 'four' }),
    node('gateway', 'gateway', { ...gateway, state: 'leading' }),
  ];
  expect(leaderIn(nodes)).toBe(null);
  expect(leaderIn([...nodes, node('leader', 'listener', listener)])).toMatchObject({
    node: 'leader',
    state: { headSeq: 7, canaryEveryMs: 5_000 },
  });
});
