/** Every metric, declared once. A registry for each process; names, labels and units are the public contract. */
import { Counter, collectDefaultMetrics, Gauge, Histogram, Registry } from 'prom-client';

const latencyBuckets = [0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1, 2, 5, 10];

export function createRegistry(node: string): Registry {
  const registry = new Registry();
  registry.setDefaultLabels({ node });
  collectDefaultMetrics({ register: registry });
  return registry;
}

export type ListenerMetrics = ReturnType<typeof listenerMetrics>;
export function listenerMetrics(registry: Registry) {
  const registers = [registry];
  return {
    registry,
    leader: new Gauge({ name: 'plank_leader', help: '1 while this listener leads', registers }),
    term: new Gauge({ name: 'plank_term', help: 'The term of the last lead of this listener', registers }),
    ringing: new Gauge({
      name: 'plank_doorbell_ringing',
      help: '1 while writers ring (NOTIFY), 0 while the listener polls',
      registers,
    }),
    rings: new Counter({ name: 'plank_doorbell_rings_total', help: 'Notifications received', registers }),
    safetyFinds: new Counter({
      name: 'plank_safety_finds_total',
      help: 'Drains by the safety check that found changes which nothing had announced: the NOTIFY path is dead if this grows',
      registers,
    }),
    drained: new Counter({ name: 'plank_drained_events_total', help: 'Changes that got their seq', registers }),
    drainEvents: new Histogram({
      name: 'plank_drain_events',
      help: 'Changes in one drain that found any',
      buckets: [1, 2, 5, 10, 50, 100, 500, 1_000, 5_000, 50_000],
      registers,
    }),
    drainSeconds: new Histogram({
      name: 'plank_drain_seconds',
      help: 'One drain, round trip and commit',
      buckets: latencyBuckets,
      registers,
    }),
    captureToDrain: new Histogram({
      name: 'plank_capture_to_drain_seconds',
      help: 'From the capture of the oldest change of a drain until it was drained (a long transaction counts whole)',
      buckets: latencyBuckets,
      registers,
    }),
    published: new Counter({ name: 'plank_published_events_total', help: 'Changes handed to the fan-out', registers }),
    publishFailures: new Counter({
      name: 'plank_publish_failures_total',
      help: 'Batches that the fan-out did not take',
      registers,
    }),
    gaps: new Counter({
      name: 'plank_publish_gaps_total',
      help: 'Times the stream lacked changes and got them from the log',
      registers,
    }),
    headSeq: new Gauge({ name: 'plank_head_seq', help: 'The last seq that this leader gave', registers }),
    captureProblems: new Gauge({
      name: 'plank_capture_problems',
      help: 'Attached tables whose changes are not captured as they should be, see select * from plank.check()',
      registers,
    }),
    forgotten: new Counter({ name: 'plank_forgotten_rows_total', help: 'Outbox rows deleted by retention', registers }),
  };
}

export type GatewayMetrics = ReturnType<typeof gatewayMetrics>;
export function gatewayMetrics(registry: Registry) {
  const registers = [registry];
  return {
    registry,
    connections: new Gauge({
      name: 'plank_connections',
      help: 'Open WebSocket connections of this replica',
      labelNames: ['transport'],
      registers,
    }),
    connectionsLimit: new Gauge({
      name: 'plank_connections_limit',
      help: 'Connections that this replica accepts',
      registers,
    }),
    opened: new Counter({ name: 'plank_connections_opened_total', help: 'Connections accepted', registers }),
    disconnects: new Counter({
      name: 'plank_disconnects_total',
      help: 'Connections ended, by close code',
      labelNames: ['code'],
      registers,
    }),
    events: new Counter({ name: 'plank_events_total', help: 'Changes received from the log', registers }),
    deliveries: new Counter({ name: 'plank_deliveries_total', help: 'Change frames written to sockets', registers }),
    lag: new Histogram({
      name: 'plank_commit_to_socket_seconds',
      help: 'From the capture of a change until it was written to sockets',
      buckets: latencyBuckets,
      registers,
    }),
    seq: new Gauge({ name: 'plank_gateway_seq', help: 'The last seq that this replica has passed on', registers }),
    fallbackReads: new Counter({
      name: 'plank_fallback_reads_total',
      help: 'Reads of the log in Postgres, because the stream was behind, trimmed or unreachable',
      registers,
    }),
    catchingUp: new Gauge({ name: 'plank_catching_up', help: 'Connections that read on at their own pace', registers }),
    snapshots: new Counter({ name: 'plank_snapshots_total', help: 'Snapshots read from Postgres', registers }),
    resyncs: new Counter({
      name: 'plank_resyncs_total',
      help: 'Subscriptions told that their picture is void, by reason',
      labelNames: ['reason'],
      registers,
    }),
    subscriptions: new Gauge({
      name: 'plank_subscriptions',
      help: 'Open subscriptions of plank.v1 and event streams',
      registers,
    }),
    channels: new Gauge({
      name: 'plank_channels',
      help: 'What subscriptions have asked for in different words',
      registers,
    }),
    resumes: new Counter({
      name: 'plank_resumes_total',
      help: 'Connections that asked to resume, by result',
      labelNames: ['result'],
      registers,
    }),
    ringBytes: new Gauge({
      name: 'plank_ring_bytes',
      help: 'Bytes of the recent log and its frames in memory',
      registers,
    }),
  };
}
