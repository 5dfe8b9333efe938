// Each metric moves with the event that it counts, on a working listener and gateway. Canaries take the way of changes, and reach no
// client.

import { Registry } from 'prom-client';
import { afterEach, describe, expect, test } from 'vitest';
import { WebSocket } from 'ws';
import { canariesOf, packBatches } from '#shared/log/batch.ts';
import { LogReader } from '#shared/log/log-reader.ts';
import { gatewayMetrics, httpMetrics, listenerMetrics } from '#shared/process/metrics.ts';
import { TestClient } from '../../support/stage/client.ts';
import { startEmbedded } from '../../support/stage/embedded.ts';
import { changesOf, type Peer, Stage } from '../../support/stage/stage.ts';
import { until } from '../../support/wait.ts';

const canaryMs = 200;
const stage = Stage.of(
  `create table todo (id int primary key, status text);
   create table big (id int primary key, body text);
   create table broken (id int primary key);
   select plank.attach(t) from unnest('{todo,big,broken}'::regclass[]) t;
   alter event trigger plank_ddl disable;
   alter table broken disable trigger plank_insert;
   alter event trigger plank_ddl enable`,
  {
    CANARY_INTERVAL_MS: String(canaryMs),
    MAX_QUEUE_BYTES: '65536',
    RING_BYTES: '262144',
    RETENTION_MS: '6000',
  },
);
const plainOnes: WebSocket[] = [];
afterEach(() => {
  for (const ws of plainOnes.splice(0)) ws.terminate();
});
const moved = new Set<string>();

/** The sum of the series of a name whose labels contain all of `labels`; 0 where there is none. */
async function value(series: string): Promise<number> {
  const [name = '', labels = ''] = series.split(/[{}]/);
  moved.add(name.replace(/_(count|sum)$/, ''));
  const wanted = labels.split(',').filter(Boolean);
  let sum = 0;
  for (const line of (await stage.embedded.registry.metrics()).split('\n')) {
    if (/^\w+/.exec(line)?.[0] !== name || !wanted.every((label) => line.includes(label))) continue;
    sum += Number(line.slice(line.lastIndexOf(' ') + 1));
  }
  return sum;
}

const becomes = (series: string, is: (now: number) => boolean, deadlineMs = 5_000) =>
  until(`${series} has the expected value`, async () => is(await value(series)), deadlineMs);

let lastId = 0;
async function write(count = 1): Promise<void> {
  for (let i = 0; i < count; i++) await stage.sql('insert into todo values ($1)', [++lastId]);
}

const isLive = ({ reader }: Peer) => until('it is live', () => reader.all.some(({ type }) => type === 'live'), 5_000);

async function plain(query = ''): Promise<WebSocket> {
  const ws = new WebSocket(`${stage.embedded.url.replace('http', 'ws')}/ws${query}`);
  plainOnes.push(ws);
  ws.on('error', () => {});
  await new Promise((resolve) => ws.once('open', resolve));
  return ws;
}

async function plainClosed(ws: WebSocket): Promise<void> {
  if (ws.readyState !== WebSocket.CLOSED) await new Promise((resolve) => ws.once('close', resolve));
}

async function position(): Promise<string> {
  return ((await (await fetch(`${stage.embedded.url}/health`)).json()) as { position: string }).position;
}

/** a position of another database */
const foreign = 'e7.1';

const connected = async () => {
  const ws = await plain();
  ws.close(1000);
  await plainClosed(ws);
};
const refused = async () => {
  const ws = await plain();
  ws.send('{"action":"dance"}');
  await plainClosed(ws);
};
const streamed = async () => {
  const stream = await stage.stream({ table: 'todo' });
  await stream.expect('live');
  stream.close();
};
const resumedPlain = async (since: string) => {
  const ws = await plain(`?since=${since}`);
  if (since === foreign) return plainClosed(ws);
  await becomes('plank_catching_up', (now) => now === 0);
  ws.close();
};
const resumed = async (from: string) => {
  const peer = await stage.peer();
  await stage.subscribe(peer, { table: 'todo', from });
  if (from === foreign) await peer.reader.expect('resync');
  await peer.reader.expect('live');
};

describe('counters and histograms', () => {
  test.each<[series: string, by: number, act: () => Promise<unknown>]>([
    ['plank_connections_opened_total', 1, connected],
    ['plank_connections_opened_total', 1, streamed],
    ['plank_disconnects_total{code="1000"}', 1, connected],
    ['plank_disconnects_total{code="4400"}', 1, refused],
    ['plank_disconnects_total{code="sse"}', 1, streamed],
    ['plank_events_total', 3, () => write(3)],
    ['plank_drained_events_total', 3, () => write(3)],
    ['plank_published_events_total', 3, () => write(3)],
    ['plank_drain_events_sum', 3, () => write(3)],
    ['plank_drain_seconds_count', 1, () => write()],
    ['plank_capture_to_drain_seconds_count', 1, () => write()],
    ['plank_doorbell_rings_total', 1, () => write()],
    ['plank_commit_to_socket_seconds_count{stage="capture"}', 1, () => write()],
    ['plank_commit_to_socket_seconds_count{stage="publish"}', 1, () => write()],
    ['plank_commit_to_socket_seconds_count{stage="fanout"}', 1, () => write()],
    ['plank_commit_to_socket_seconds_count{stage="total"}', 1, () => write()],
    ['plank_resumes_total{result="ok"}', 1, async () => resumed(await position())],
    ['plank_resumes_total{result="ok"}', 1, async () => resumedPlain(await position())],
    ['plank_resumes_total{result="gone"}', 1, () => resumed(foreign)],
    ['plank_resumes_total{result="gone"}', 1, () => resumedPlain(foreign)],
    ['plank_resyncs_total{reason="epoch"}', 1, () => resumed(foreign)],
    [
      'plank_http_requests_total{route="/health/live",status="200"}',
      1,
      () => fetch(`${stage.embedded.url}/health/live`),
    ],
    [
      'plank_http_requests_total{route="/api/:table/:id",status="404"}',
      1,
      () => fetch(`${stage.embedded.url}/api/todo/0`),
    ],
    ['plank_http_request_duration_seconds_count', 1, () => fetch(`${stage.embedded.url}/api/todo`)],
    ['plank_canaries_total', 2, async () => {}],
    ['plank_canary_seconds_count', 2, async () => {}],
  ])('the metric %s rises by %i', async (series, by, act) => {
    const before = await value(series);
    await act();
    await becomes(series, (now) => now >= before + by);
  });

  test('plank_resyncs_total rises when the table is altered', async () => {
    const peer = await stage.peer();
    await stage.subscribe(peer, { table: 'todo' });
    await peer.reader.expect('live');
    await stage.sql('alter table todo add column note text');
    await becomes('plank_resyncs_total{reason="shape"}', (now) => now === 1);
  });

  test('plank_snapshots_total and plank_deliveries_total rise with a snapshot and its changes', async () => {
    const [snapshots, deliveries] = [await value('plank_snapshots_total'), await value('plank_deliveries_total')];
    const peer = await stage.peer();
    const ch = await stage.subscribe(peer, { table: 'todo', snapshot: true });
    await isLive(peer);
    await write(2);
    await until('both changes arrive', () => changesOf(peer, ch).length === 2, 5_000);
    expect(await value('plank_snapshots_total')).toBe(snapshots + 1);
    expect(await value('plank_deliveries_total')).toBe(deliveries + 2);
  });

  test('the stages of plank_commit_to_socket_seconds add up to its total', async () => {
    const sum = (stages: string) => value(`plank_commit_to_socket_seconds_sum{stage="${stages}"}`);
    const stages = await Promise.all(['capture', 'publish', 'fanout'].map(sum));
    const count = await value('plank_commit_to_socket_seconds_count{stage="total"}');
    // stages that would be negative, by differences of clocks, count as 0
    const parts = stages.reduce((all, one) => all + one);
    expect(Math.abs(parts - (await sum('total')))).toBeLessThan(0.002 * count);
    expect(parts / count).toBeLessThan(1);
  });
});

describe('gauges', () => {
  test('gauges show connections by transport, and subscriptions and channels by table', async () => {
    const [ws, other] = [await plain('?tables=todo'), await plain('?tables=todo')];
    const peer = await stage.peer();
    await stage.subscribe(peer, { table: 'todo' });
    await peer.reader.expect('live');
    await stage.subscribe(peer, { table: 'todo', where: { id: { eq: 1 } } });
    const stream = await stage.stream({ table: 'big' });
    await stream.expect('live');
    const expected = {
      'plank_connections{transport="websocket"}': 3,
      'plank_connections{transport="sse"}': 1,
      'plank_subscriptions{table="todo"}': 2,
      'plank_subscriptions{table="big"}': 1,
      'plank_subscriptions{table="*"}': 2,
      'plank_channels{table="todo"}': 2,
      'plank_channels{table="big"}': 1,
      'plank_channels{table="*"}': 1,
    };
    for (const [series, count] of Object.entries(expected))
      expect([series, await value(series)]).toEqual([series, count]);
    expect(await value('plank_connections_limit')).toBe(50_000);
    for (const one of [ws, other, peer.ws]) one.close();
    stream.close();
    for (const series of Object.keys(expected)) await becomes(series, (now) => now === 0);
  });

  test('gauges show how many changes wait in the outbox, and how long', async () => {
    await becomes('plank_outbox_depth', (now) => now === 0);
    await stage.undrained(async () => {
      await write(5);
      // canaries wait with them
      await becomes('plank_outbox_depth', (now) => now >= 5 && now < 20);
      await becomes('plank_outbox_oldest_seconds', (now) => now > 1 && now < 5);
    });
    await becomes('plank_outbox_depth', (now) => now === 0);
    await becomes('plank_outbox_oldest_seconds', (now) => now === 0);
  });

  test.each<[series: string, is: (now: number) => boolean]>([
    ['plank_leader', (now) => now === 1],
    ['plank_term', (now) => now >= 1],
    ['plank_last_heartbeat_timestamp_seconds', (now) => Math.abs(now - Date.now() / 1_000) < 3],
    ['plank_doorbell_ringing', (now) => now === 1],
    ['plank_pg_notify_queue_usage', (now) => now >= 0 && now < 1],
    ['plank_head_seq', (now) => now > 0],
    ['plank_ready', (now) => now === 1],
    ['plank_fresh', (now) => now === 1],
    ['plank_gateway_seq', (now) => now > 0],
    ['plank_gateway_lag_events', (now) => now === 0],
    ['plank_stream_lag_events', (now) => now === 0],
    ['plank_stream_entries', (now) => now > 1],
    ['plank_stream_bytes', (now) => now > 1],
    ['plank_log_oldest_seconds', (now) => now > 0.5 && now < 20],
    ['plank_log_events', (now) => now > 5],
    ['plank_log_bytes', (now) => now > 500],
    ['plank_ring_bytes', (now) => now > 0],
    ['plank_capture_problems', (now) => now === 1],
    ['plank_forgotten_rows_total', (now) => now > 0],
  ])('the gauge %s is right', async (series, is) => {
    await write();
    await becomes(series, is, 12_000);
  });

  test('gauges show slow clients, their send buffers, and that they were left behind', async () => {
    const peer = await stage.peer();
    await stage.subscribe(peer, { table: 'big' });
    await peer.reader.expect('live');
    peer.ws.pause();
    const behind = async () => {
      await stage.sql(`insert into big select coalesce(max(id), 0) + 1, repeat('x', 500000) from big`);
      return (await value('plank_slow_clients')) === 1;
    };
    await until('the client is slow', behind, 15_000);
    expect(await value('plank_buffered_bytes')).toBeGreaterThan(65_536);
    expect(await value('plank_catching_up')).toBe(1);
    const lost = await value('plank_resyncs_total{reason="retention"}');
    // more changes than memory and the log keep
    for (let i = 0; i < 12; i++) await stage.sql(`insert into big select max(id) + 1, repeat('x', 500000) from big`);
    const head = await value('plank_head_seq');
    await until(
      'the log has purged its next change',
      async () => (await value('plank_head_seq')) - (await value('plank_log_events')) > head,
      20_000,
    );
    peer.ws.resume();
    await becomes('plank_resyncs_total{reason="retention"}', (now) => now === lost + 1);
    await becomes('plank_slow_clients', (now) => now === 0);
    await becomes('plank_buffered_bytes', (now) => now === 0);
  });
});

/** The number of frames sent to a peer, without the periodic `pos`. */
const framesOf = ({ reader }: Peer) => reader.all.filter(({ type }) => type !== 'pos').length;

describe('canaries', () => {
  test('canaries reach no client, do not count as changes, and do not disturb a resume', async () => {
    const url = `${stage.embedded.url.replace('http', 'ws')}/ws`;
    const client = await TestClient.connect({ url, keepsFrames: true });
    const peer = await stage.peer();
    await stage.subscribe(peer, { table: 'todo', snapshot: true });
    await isLive(peer);
    const stream = await stage.stream({ table: 'todo' });
    await stream.expect('live');
    const from = await position();
    const [events, seq, frames] = [await value('plank_events_total'), await value('plank_gateway_seq'), framesOf(peer)];
    await becomes('plank_gateway_seq', (now) => now >= seq + 5);
    expect(await value('plank_events_total')).toBe(events);
    expect(client.count).toBe(0);
    expect(framesOf(peer)).toBe(frames);
    // the log has canaries, which a resume passes
    const rows = await new LogReader(stage.pool).page(Number(from.split('.')[1]), 1_000);
    const [batch] = packBatches(1, rows);
    expect(canariesOf(batch!).length).toBeGreaterThanOrEqual(5);
    expect(canariesOf(batch!)[0]).toMatchObject({ everyMs: canaryMs });

    await write();
    const later = await stage.peer();
    const ch = await stage.subscribe(later, { table: 'todo', from });
    const again = await TestClient.connect({ url, since: from, keepsFrames: true });
    await until(
      'the change arrives',
      () => client.count === 1 && again.count === 1 && changesOf(later, ch).length === 1,
      5_000,
    );
    expect(again.frames).toEqual(client.frames);
    for (const one of [client, again]) one.stop();
  });

  test('purged canaries void no position, and purged changes do', async () => {
    const gone = await position();
    await stage.arrived();
    const { rows: last } = await stage.sql(`select max(xid) as xid from plank.outbox where action <> 'C'`);
    const since = await position();
    await until(
      'the log has purged both',
      async () => {
        const held = await stage.sql(
          'select 1 from plank.log, plank.outbox where xid = $1 union select 1 from plank.log where first_seq <= $2 limit 1',
          [last[0].xid, since.split('.')[1]],
        );
        return held.rowCount === 0;
      },
      20_000,
    );
    // another replica, whose memory is empty
    const other = await startEmbedded(stage.databaseUrl);
    try {
      const url = `${other.url.replace('http', 'ws')}/ws`;
      const client = await TestClient.connect({ url, since, keepsFrames: true });
      await write();
      await until('the change arrives', () => client.count === 1, 8_000);
      expect(client.closeCodes).toEqual([]);
      client.stop();
      const late = await TestClient.connect({ url, since: gone, reconnects: false });
      await until('the client is closed', () => late.closeCodes.length === 1, 8_000);
      expect(late.closeCodes).toEqual([4410]);
    } finally {
      await other.stop();
    }
  });

  test('canaries that do not come are missed, until they come again', async () => {
    const before = await value('plank_canary_missed_total');
    await stage.undrained(() => becomes('plank_canary_missed_total', (now) => now >= before + 3));
    const seen = await value('plank_canary_seconds_count');
    await becomes('plank_canary_seconds_count', (now) => now > seen + 10);
    const missed = await value('plank_canary_missed_total');
    await becomes('plank_canary_seconds_count', (now) => now > seen + 15);
    expect(await value('plank_canary_missed_total')).toBe(missed);
  });
});

describe('what is declared', () => {
  test('every declared metric was seen to move', () => {
    const registry = new Registry();
    for (const declare of [listenerMetrics, gatewayMetrics, httpMetrics]) declare(registry);
    const still = registry
      .getMetricsAsArray()
      .map(({ name }) => name)
      .filter((name) => !moved.has(name));
    expect(still.sort()).toEqual([
      // these need a fault, load or another replica, and have tests of their own
      'plank_access_set_invalidations_total',
      'plank_access_set_loads_total',
      'plank_access_sets',
      'plank_auth_total',
      'plank_canary_failures_total',
      'plank_catch_ups_given_up_total',
      'plank_connections_shed_total',
      'plank_fallback_reads_total',
      'plank_history_held_bytes',
      'plank_publish_failures_total',
      'plank_publish_gaps_total',
      'plank_refused_total',
      'plank_safety_finds_total',
      'plank_snapshots_waiting',
      'plank_stream_gaps_total',
    ]);
  });
});
