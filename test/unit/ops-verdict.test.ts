// What the console says first, for each way in which something can be wrong, and which of two is said first.

import { describe, expect, it } from 'vitest';
import { duration, type Picture, verdict } from '../../services/gateway/ops-verdict.ts';

type Seen = Picture['gateways'][number];

const gateway = (node: string, own: Partial<Seen> = {}): Seen => ({
  node,
  silentMs: 0,
  ready: true,
  draining: false,
  canaryLate: false,
  readingMs: 0,
  connections: 100,
  slow: 0,
  p99: 4,
  canaryMs: 3,
  ...own,
});

function picture(own: Partial<Picture> = {}): Picture {
  return {
    self: 'gateway-1',
    deafMs: 0,
    postgresSilentMs: 0,
    log: { leader: 'listener-1', waitingMs: 0, waiting: 0 },
    problems: [],
    listeners: [{ node: 'listener-1', silentMs: 0 }],
    gateways: [gateway('gateway-1'), gateway('gateway-2')],
    ...own,
  };
}

const nobodyLeads = { leader: null, waitingMs: 12_400, waiting: 30 };

describe('the sentence', () => {
  it.each<[string, Partial<Picture>, string, string]>([
    ['all is well', {}, 'good', 'All is well: changes arrive within 4 ms'],
    [
      'the slowest replica counts',
      { gateways: [gateway('gateway-1'), gateway('gateway-2', { p99: 180 })] },
      'good',
      'All is well: changes arrive within 180 ms',
    ],
    [
      'nothing changes',
      { gateways: [gateway('gateway-1', { p99: null })] },
      'good',
      'All is well: nothing changes, and would arrive within 3 ms',
    ],
    ['no listener leads', { log: nobodyLeads }, 'bad', 'No listener leads: changes wait (12 s)'],
    [
      'the leader hangs',
      { log: { leader: 'listener-1', waitingMs: 2_200, waiting: 1_203 } },
      'bad',
      'listener-1 leads and drains nothing: 1,203 changes wait (2.2 s)',
    ],
    [
      'Postgres is down',
      { postgresSilentMs: 3_000, log: null },
      'bad',
      'Postgres does not answer: nobody can write, nothing changes (3.0 s)',
    ],
    [
      'a gateway gets nothing',
      { gateways: [gateway('gateway-1'), gateway('gateway-2', { ready: false, reason: 'why not' })] },
      'bad',
      'gateway-2 gets no changes: why not',
    ],
    [
      'a canary is missing',
      { gateways: [gateway('gateway-1'), gateway('gateway-2', { canaryLate: true })] },
      'bad',
      'Changes are late or do not come to gateway-2: a canary is missing',
    ],
    ['a trigger is disabled', { problems: ['items is not captured'] }, 'bad', 'items is not captured'],
    [
      'Redis is down',
      { deafMs: 8_000 },
      'wait',
      'Redis does not answer: gateway-1 reads changes from the log in Postgres, and hears nothing of the other replicas (8.0 s)',
    ],
    [
      'a replica reads the log',
      { gateways: [gateway('gateway-1'), gateway('gateway-2', { readingMs: 5_000 })] },
      'wait',
      'gateway-2 reads the log in Postgres, because Redis does not answer or lacks changes',
    ],
    [
      'a gateway is gone',
      { gateways: [gateway('gateway-1'), gateway('gateway-2', { silentMs: 8_000, slow: 3 })] },
      'wait',
      'gateway-2 does not answer (8.0 s)',
    ],
    [
      'a standby is gone',
      { listeners: [{ node: 'listener-2', silentMs: 130_000 }] },
      'wait',
      'listener-2 does not answer (2 min)',
    ],
    [
      'a replica drains',
      { gateways: [gateway('gateway-1'), gateway('gateway-2', { draining: true, ready: false, connections: 812 })] },
      'wait',
      'gateway-2 drains: 812 clients left',
    ],
    [
      'a client is slow',
      { gateways: [gateway('gateway-1', { slow: 1 })] },
      'wait',
      '1 client of gateway-1 reads too slowly',
    ],
    [
      'changes are late',
      { gateways: [gateway('gateway-1', { p99: 2_300 })] },
      'wait',
      'Changes arrive late: within 2.3 s',
    ],
  ])('where %s', (_what, own, level, text) => {
    expect(verdict(picture(own))).toMatchObject({ level, text });
  });

  it('says the worst first and the rest behind it', () => {
    const gateways = [gateway('gateway-1', { slow: 2 }), gateway('gateway-2', { silentMs: 4_000 })];
    expect(verdict(picture({ log: nobodyLeads, gateways }))).toEqual({
      level: 'bad',
      text: 'No listener leads: changes wait (12 s)',
      also: ['gateway-2 does not answer (4.0 s)', '2 clients of gateway-1 read too slowly'],
    });
  });

  it('says that changes arrive all the same, where they do', () => {
    const gateways = [gateway('gateway-1'), gateway('gateway-2', { draining: true, ready: false, connections: 0 })];
    expect(verdict(picture({ gateways }))).toEqual({
      level: 'wait',
      text: 'gateway-2 is drained and takes no clients',
      also: ['Changes arrive all the same, within 4 ms'],
    });
  });
});

it.each([
  [0, '1 ms'],
  [999, '999 ms'],
  [1_240, '1.2 s'],
  [61_000, '61 s'],
  [240_000, '4 min'],
  [9_000_000, '3 h'],
])('%i ms is %s', (ms, text) => {
  expect(duration(ms)).toBe(text);
});
