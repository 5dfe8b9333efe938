// The console's first sentence for each fault, and its order where there are several.

import { describe, expect, test } from 'vitest';
import { duration, type Picture, verdict } from '#gateway/ops/verdict.ts';

type Seen = Picture['gateways'][number];

const gateway = (node: string, own: Partial<Seen> = {}): Seen => ({
  node,
  silentMs: 0,
  ready: true,
  draining: false,
  canaryLate: false,
  staleReason: null,
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
    stream: 'redis',
    problems: [],
    listeners: [{ node: 'listener-1', silentMs: 0 }],
    gateways: [gateway('gateway-1'), gateway('gateway-2')],
    ...own,
  };
}

const unconfirmed = 'neither Postgres nor a listener confirms that changes arrive';
const stale = (node: string, staleReason = unconfirmed) => gateway(node, { staleReason });
const postgresIsDown = { postgresSilentMs: 3_000, log: null, gateways: [stale('gateway-1'), stale('gateway-2')] };
const nobodyLeads = { leader: null, waitingMs: 12_400, waiting: 30 };

describe('the sentence', () => {
  test.each<[string, Partial<Picture>, string, string]>([
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
    ['Postgres is down', postgresIsDown, 'bad', 'Postgres does not answer: nobody can write, nothing changes (3.0 s)'],
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
      'Changes are late or do not reach gateway-2: a canary is missing',
    ],
    [
      'a replica is stale',
      { gateways: [gateway('gateway-1'), stale('gateway-2', 'this replica is behind the log')] },
      'bad',
      'Changes may not reach gateway-2: this replica is behind the log',
    ],
    [
      'all are stale, for one reason, which each counts differently',
      { gateways: [stale('gateway-1', 'no listener leads (4 s)'), stale('gateway-2', 'no listener leads (5 s)')] },
      'bad',
      'Changes may not reach gateway-1 and gateway-2: no listener leads',
    ],
    [
      'a replica that drains is stale, and has clients still',
      { gateways: [gateway('gateway-1'), { ...stale('gateway-2'), draining: true, ready: false }] },
      'bad',
      `Changes may not reach gateway-2: ${unconfirmed}`,
    ],
    [
      'a stale replica misses a canary, too',
      { gateways: [gateway('gateway-1'), { ...stale('gateway-2'), canaryLate: true }] },
      'bad',
      `Changes may not reach gateway-2: ${unconfirmed}`,
    ],
    [
      'only the replica that looks does not reach Postgres',
      { postgresSilentMs: 3_000, log: null },
      'wait',
      'Postgres does not answer gateway-1: it serves no REST calls and no snapshots (3.0 s)',
    ],
    [
      'a replica is not ready, because it alone is stale',
      {
        gateways: [
          gateway('gateway-1'),
          { ...stale('gateway-2'), ready: false, reason: `others get changes, this replica does not: ${unconfirmed}` },
        ],
      },
      'bad',
      `gateway-2 gets no changes: ${unconfirmed}`,
    ],
    [
      'the replica that looks reaches neither Postgres nor changes, and another does',
      { postgresSilentMs: 9_000, log: null, gateways: [stale('gateway-1'), gateway('gateway-2')] },
      'bad',
      `Changes may not reach gateway-1: ${unconfirmed}`,
    ],
    ['a trigger is disabled', { problems: ['items is not captured'] }, 'bad', 'items is not captured'],
    [
      'Redis is down',
      { deafMs: 8_000 },
      'wait',
      'Redis does not answer: changes come from the log in Postgres (8.0 s)',
    ],
    [
      'a replica reads the log',
      { gateways: [gateway('gateway-1'), gateway('gateway-2', { readingMs: 5_000 })] },
      'wait',
      'gateway-2 reads the log in Postgres, because Redis does not answer or lacks changes',
    ],
    [
      'a process without Redis reads the log',
      { stream: 'memory', gateways: [gateway('plank', { readingMs: 5_000 })] },
      'wait',
      'plank reads the log in Postgres, because the stream in memory lacks changes',
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
  ])('the sentence is right where %s', (_what, own, level, text) => {
    expect(verdict(picture(own))).toMatchObject({ level, text });
  });

  test('the verdict says the worst first, then the rest', () => {
    const gateways = [gateway('gateway-1', { slow: 2 }), gateway('gateway-2', { silentMs: 4_000 })];
    expect(verdict(picture({ log: nobodyLeads, gateways }))).toEqual({
      level: 'bad',
      text: 'No listener leads: changes wait (12 s)',
      todo: expect.stringMatching(/^Look at the log of listener-1: .* Nothing is lost/),
      also: ['gateway-2 does not answer (4.0 s)', '2 clients of gateway-1 read too slowly'],
    });
  });

  test('the verdict says that changes arrive all the same, where they do', () => {
    const gateways = [gateway('gateway-1'), gateway('gateway-2', { draining: true, ready: false, connections: 0 })];
    expect(verdict(picture({ gateways }))).toEqual({
      level: 'wait',
      text: 'gateway-2 is drained and accepts no clients',
      todo: 'Stop it, or undrain it below.',
      also: ['Changes arrive all the same, within 4 ms'],
    });
  });

  test.each([
    [3_000, []],
    [6_000, ['Changes arrive all the same, within 4 ms']],
  ])(
    'without Postgres the verdict says that changes arrive only where that is known: after %i ms',
    (postgresSilentMs, also) => {
      expect(verdict(picture({ postgresSilentMs, log: null })).also).toEqual(also);
    },
  );

  const isLate = [gateway('gateway-1', { p99: 1_800 })];
  test.each<[string, Partial<Picture>, Seen[]?]>([
    ['nobody leads', { log: nobodyLeads }],
    ['the leader hangs', { log: { leader: 'listener-1', waitingMs: 2_200, waiting: 3 } }],
    ['Postgres is down', { postgresSilentMs: 3_000, log: null }, [{ ...isLate[0]!, staleReason: unconfirmed }]],
  ])('the verdict does not say that changes arrive, late or not, where %s', (_what, own, gateways = isLate) => {
    expect(verdict(picture({ ...own, gateways })).also).toEqual([]);
    expect(verdict(picture({ ...own, problems: ['x'], gateways })).also).toEqual(['x']);
  });

  test('the verdict says that changes arrive late, where others do not arrive at all', () => {
    expect(verdict(picture({ problems: ['x'], gateways: isLate })).also).toEqual(['Changes arrive late: within 1.8 s']);
  });

  test('the verdict names the replica of the numbers, while no other answers', () => {
    const { also } = verdict(picture({ deafMs: 8_000, listeners: [], gateways: [gateway('gateway-1')] }));
    expect(also[0]).toMatch(/^gateway-1 cannot hear the others/);
  });
});

describe('the advice', () => {
  const gone = { node: 'listener-1', silentMs: 8_000 };
  const standby = { node: 'listener-2', silentMs: 0 };
  test.each<[string, Partial<Picture>, RegExp | null]>([
    ['all is well', {}, null],
    ['no listener is there', { log: nobodyLeads, listeners: [gone] }, /^Start a listener: none is running/],
    [
      'no listener can be heard',
      { log: nobodyLeads, listeners: [], deafMs: 9_000 },
      /^Look whether listeners are running/,
    ],
    [
      'a listener is there and does not lead',
      { log: nobodyLeads, listeners: [gone, standby] },
      /^Look at the log of listener-2/,
    ],
    [
      'the last standby is gone',
      {
        listeners: [
          { ...gone, node: 'listener-2' },
          { ...standby, node: 'listener-1' },
        ],
      },
      /^listener-1 leads. Start listener-2 again, .* there is no standby/,
    ],
    [
      'a former leader is gone, and others are there',
      {
        log: { leader: 'listener-2', waitingMs: 0, waiting: 0 },
        listeners: [gone, standby, { node: 'listener-3', silentMs: 0 }],
      },
      /^listener-2 leads. Start listener-1 again, or look at its log.$/,
    ],
    ['Redis is down', { deafMs: 9_000 }, /^Bring Redis back.* Nothing is lost/],
    [
      'there is no Redis to look at',
      { stream: 'memory', gateways: [stale('plank')] },
      /^If it stays so, look at the log of the leading listener, at Postgres\.$/,
    ],
    ['Postgres is down', postgresIsDown, /^Bring Postgres back/],
    [
      'a gateway is gone',
      { gateways: [gateway('gateway-1'), gateway('gateway-2', { silentMs: 8_000 })] },
      /^Start it again/,
    ],
    ['a replica drains', { gateways: [gateway('gateway-1', { draining: true, ready: false })] }, null],
  ])('the advice is right where %s', (_what, own, expected) => {
    const { todo } = verdict(picture(own));
    if (expected === null) expect(todo).toBe(null);
    else expect(todo).toMatch(expected);
  });
});

test.each([
  [0, '1 ms'],
  [999, '999 ms'],
  [1_240, '1.2 s'],
  [61_000, '61 s'],
  [240_000, '4 min'],
  [9_000_000, '3 h'],
])('%i ms reads as %s', (ms, text) => {
  expect(duration(ms)).toBe(text);
});
