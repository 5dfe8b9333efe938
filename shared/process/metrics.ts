/**
 * Declares every metric, once. Each process has a registry. Names, labels and units are public; METRICS.md repeats
 * them, and a test compares both. No label contains a user, a row or an address. The schema and the code bound the
 * values of labels.
 */
import { Counter, collectDefaultMetrics, Gauge, type GaugeConfiguration, Histogram, Registry } from 'prom-client';
import { watchEventLoop } from './event-loop.ts';

/** The longest interval of Node's event loop monitor. event-loop.ts replaces this monitor and says why. */
const neverMs = 2 ** 31 - 1;
const latencyBuckets = [0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1, 2, 5, 10];

export function createRegistry(node: string): Registry {
  const registry = new Registry();
  registry.setDefaultLabels({ node });
  collectDefaultMetrics({ register: registry, eventLoopMonitoringPrecision: neverMs });
  for (const part of ['min', 'max', 'mean', 'stddev', 'p50', 'p90', 'p99'])
    registry.removeSingleMetric(`nodejs_eventloop_lag_${part}_seconds`);
  watchEventLoop(registry);
  return registry;
}

/** A gauge that its owner sets at each scrape, because keeping it up to date between scrapes would cost something. */
class ScrapeGauge<Label extends string = string> extends Gauge<Label> {
  #set: (() => void) | undefined;

  constructor(configuration: GaugeConfiguration<Label>) {
    super({
      ...configuration,
      collect() {
        (this as ScrapeGauge<Label>).#set?.();
      },
    });
  }

  /** At each scrape, calls `set`, which sets the gauge. */
  onScrape(set: () => void): void {
    this.#set = set;
  }
}

/** A gauge that has no value until it is set, and after `remove()`. Without a value, it is absent from /metrics. */
class KnownGauge extends Gauge {
  constructor(configuration: GaugeConfiguration<string>) {
    super(configuration);
    this.remove();
  }
}

export type ListenerMetrics = ReturnType<typeof listenerMetrics>;
export function listenerMetrics(registry: Registry) {
  const registers = [registry];
  return {
    registry,
    leader: new Gauge({ name: 'plank_leader', help: '1 while this listener leads', registers }),
    term: new Gauge({ name: 'plank_term', help: 'The term in which this listener led last', registers }),
    heartbeat: new KnownGauge({
      name: 'plank_last_heartbeat_timestamp_seconds',
      help: "When Postgres last confirmed that this listener leads, in seconds since 1970 by the listener's clock; absent while it stands by",
      registers,
    }),
    ringing: new Gauge({
      name: 'plank_doorbell_ringing',
      help: '1 while writers ring (NOTIFY), 0 while the listener polls',
      registers,
    }),
    rings: new Counter({ name: 'plank_doorbell_rings_total', help: 'Notifications received', registers }),
    safetyFinds: new Counter({
      name: 'plank_safety_finds_total',
      help: 'Drains by the safety check that found changes without a notification: the NOTIFY path is dead if this grows',
      registers,
    }),
    notifyQueue: new KnownGauge({
      name: 'plank_pg_notify_queue_usage',
      help: 'How full the notification queue of the Postgres server is, 0 to 1 (at 1 every NOTIFY fails); absent while this listener stands by',
      registers,
    }),
    outboxDepth: new KnownGauge({
      name: 'plank_outbox_depth',
      help: 'Committed changes that are not drained yet, counted up to 100,000; absent while this listener stands by',
      registers,
    }),
    outboxOldest: new KnownGauge({
      name: 'plank_outbox_oldest_seconds',
      help: 'Age of the oldest change that is not drained, since its capture (a change of a long transaction is old when it commits); 0 when there is none; absent while this listener stands by',
      registers,
    }),
    drained: new Counter({
      name: 'plank_drained_events_total',
      help: "Events that were given a seq: changes of rows, changes of a table's shape, canaries",
      registers,
    }),
    drainEvents: new Histogram({
      name: 'plank_drain_events',
      help: 'Events in one drain, of drains that found any',
      buckets: [1, 2, 5, 10, 50, 100, 500, 1_000, 5_000, 50_000],
      registers,
    }),
    drainSeconds: new Histogram({
      name: 'plank_drain_seconds',
      help: 'Duration of one drain, with round trip and commit',
      buckets: latencyBuckets,
      registers,
    }),
    captureToDrain: new Histogram({
      name: 'plank_capture_to_drain_seconds',
      help: 'From the capture of the first change of a drain until the drain (with a long transaction, its whole duration)',
      buckets: latencyBuckets,
      registers,
    }),
    published: new Counter({
      name: 'plank_published_events_total',
      help: 'Events published to the fan-out (the Redis stream)',
      registers,
    }),
    publishFailures: new Counter({
      name: 'plank_publish_failures_total',
      help: 'Batches that could not be published; they are published later, from the log',
      registers,
    }),
    gaps: new Counter({
      name: 'plank_publish_gaps_total',
      help: 'Times the fan-out lacked the events before a batch; they were published from the log',
      registers,
    }),
    headSeq: new Gauge({
      name: 'plank_head_seq',
      help: 'The last seq that this listener gave as the leader',
      registers,
    }),
    streamLag: new KnownGauge({
      name: 'plank_stream_lag_events',
      help: 'Events with a seq that are not published yet; absent while this listener stands by',
      registers,
    }),
    streamEntries: new KnownGauge({
      name: 'plank_stream_entries',
      help: 'Entries in the stream, each a batch; absent while this listener stands by or Redis does not answer',
      registers,
    }),
    streamBytes: new KnownGauge({
      name: 'plank_stream_bytes',
      help: 'Memory of the stream in Redis, limited to about STREAM_BYTES; absent while this listener stands by or Redis does not answer',
      registers,
    }),
    logOldest: new KnownGauge({
      name: 'plank_log_oldest_seconds',
      help: 'Age of the oldest drain in the log: how far back clients can resume; absent while this listener stands by',
      registers,
    }),
    logEvents: new KnownGauge({
      name: 'plank_log_events',
      help: 'Events in the log, as rows of plank.outbox; absent while this listener stands by',
      registers,
    }),
    logBytes: new KnownGauge({
      name: 'plank_log_bytes',
      help: "Size of the log's events, limited by RETENTION_BYTES; absent while this listener stands by",
      registers,
    }),
    captureProblems: new Gauge({
      name: 'plank_capture_problems',
      help: 'Problems with the capture of attached tables, one for each row of select * from plank.check()',
      registers,
    }),
    purged: new Counter({
      name: 'plank_forgotten_rows_total',
      help: 'Outbox rows purged because they are past the retention',
      registers,
    }),
    canaries: new Counter({
      name: 'plank_canaries_total',
      help: 'Canaries that this listener committed',
      registers,
    }),
    canaryFailures: new Counter({
      name: 'plank_canary_failures_total',
      help: 'Canaries that could not be committed in time',
      registers,
    }),
  };
}

export type GatewayMetrics = ReturnType<typeof gatewayMetrics>;
export function gatewayMetrics(registry: Registry) {
  const registers = [registry];
  return {
    registry,
    ready: new ScrapeGauge({
      name: 'plank_ready',
      help: '1 while this replica takes clients; 0 while it stops, is drained, can neither tail Redis nor read the log, or gets no changes while another replica does',
      registers,
    }),
    fresh: new ScrapeGauge({
      name: 'plank_fresh',
      help: '1 while changes can reach this replica: a listener leads, and this replica has passed on the positions that it gave until a moment ago',
      registers,
    }),
    connections: new ScrapeGauge({
      name: 'plank_connections',
      help: 'Open connections of this replica, by transport (websocket, sse)',
      labelNames: ['transport'],
      registers,
    }),
    connectionsLimit: new Gauge({
      name: 'plank_connections_limit',
      help: 'The most connections that this replica accepts, of all transports',
      registers,
    }),
    opened: new Counter({
      name: 'plank_connections_opened_total',
      help: 'Connections accepted, of all transports',
      registers,
    }),
    shed: new Counter({
      name: 'plank_connections_shed_total',
      help: 'Connections asked to move to another replica, because this one had more than its share',
      registers,
    }),
    auth: new Counter({
      name: 'plank_auth_total',
      help: 'Tokens checked, with AUTH=jwt, by result: ok, invalid (no token, or its signature or algorithm is wrong), unknown_key, expired, revoked, not_yet_valid, issuer, audience, lifetime (longer than allowed), claims (exp, sub or the role is missing or wrong), other_user (renewed as somebody else), ticket (not issued, or used already), origin (a cookie from a foreign page), unavailable (the keys could not be fetched)',
      labelNames: ['result'],
      registers,
    }),
    refused: new Counter({
      name: 'plank_refused_total',
      help: 'Clients refused because of a limit, with AUTH=jwt, by reason: user_connections, address_connections, requests, tokens (too many of the address were refused)',
      labelNames: ['reason'],
      registers,
    }),
    accessSets: new ScrapeGauge({
      name: 'plank_access_sets',
      help: 'Sets of other tables ($from) that policies compare rows with, in memory; kept for 30 s after their last use',
      registers,
    }),
    accessSetLoads: new Counter({
      name: 'plank_access_set_loads_total',
      help: 'Sets that were read from Postgres',
      registers,
    }),
    accessSetInvalidations: new Counter({
      name: 'plank_access_set_invalidations_total',
      help: 'Sets that were dropped because a change could change their values',
      registers,
    }),
    disconnects: new Counter({
      name: 'plank_disconnects_total',
      help: 'Connections ended, by WebSocket close code; event streams, which have none, count as sse',
      labelNames: ['code'],
      registers,
    }),
    subscriptions: new ScrapeGauge({
      name: 'plank_subscriptions',
      help: "Open subscriptions by table; plain mode's, to any set of tables, count as *",
      labelNames: ['table'],
      registers,
    }),
    channels: new ScrapeGauge({
      name: 'plank_channels',
      help: "Channels (distinct filters and columns that subscriptions share) by table; plain mode's sets of tables count as *",
      labelNames: ['table'],
      registers,
    }),
    events: new Counter({
      name: 'plank_events_total',
      help: 'Changes received from the log, without canaries',
      registers,
    }),
    deliveries: new Counter({ name: 'plank_deliveries_total', help: 'Change frames written to sockets', registers }),
    lag: new Histogram({
      name: 'plank_commit_to_socket_seconds',
      help: 'From the capture of a change until it was written to sockets, for the first change of each batch, by stage: capture (captured → drained), publish (drained → received by this replica), fanout (received → written), total (captured → written). Skew between the clocks of Postgres, listener and gateway shifts all stages but fanout; a negative value counts as 0. Batches read from the log have no stages capture and publish',
      labelNames: ['stage'],
      buckets: latencyBuckets,
      registers,
    }),
    seq: new Gauge({ name: 'plank_gateway_seq', help: 'The last seq that this replica has passed on', registers }),
    behind: new ScrapeGauge({
      name: 'plank_gateway_lag_events',
      help: 'Events that the leader has given a seq and this replica has not passed on; the leader reports its seq once a second',
      registers,
    }),
    fallbackReads: new Counter({
      name: 'plank_fallback_reads_total',
      help: 'Reads of the log in Postgres, because the stream was behind, trimmed or unreachable',
      registers,
    }),
    gaps: new Counter({
      name: 'plank_stream_gaps_total',
      help: 'Times the stream lacked events before its next batch; this replica read them from the log',
      registers,
    }),
    resumes: new Counter({
      name: 'plank_resumes_total',
      help: 'Subscriptions (in plain mode: connections) that resumed after a position, by result: ok (live again), gone (the position is no longer kept or of another history, or the table was altered since)',
      labelNames: ['result'],
      registers,
    }),
    catchingUp: new Gauge({
      name: 'plank_catching_up',
      help: 'Subscriptions that are catching up, at the pace at which their clients read',
      registers,
    }),
    snapshots: new Counter({ name: 'plank_snapshots_total', help: 'Snapshots read from Postgres', registers }),
    snapshotsWaiting: new ScrapeGauge({
      name: 'plank_snapshots_waiting',
      help: 'Subscriptions whose snapshot has not begun: the limit of snapshots read at once is reached, or the table is locked',
      registers,
    }),
    resyncs: new Counter({
      name: 'plank_resyncs_total',
      help: 'Resyncs sent to subscriptions, by reason: retention (too far behind), epoch (another history), shape (the table was altered), rows (rows changed without changes of their own), access (the rights of the client have changed)',
      labelNames: ['reason'],
      registers,
    }),
    catchUpsGivenUp: new Counter({
      name: 'plank_catch_ups_given_up_total',
      help: 'Subscriptions that could not catch up although Postgres answered, and were sent a resync',
      registers,
    }),
    bufferedBytes: new ScrapeGauge({
      name: 'plank_buffered_bytes',
      help: 'Bytes in the send buffers of this process, of all connections: written, and not yet taken by the kernel',
      registers,
    }),
    slowClients: new ScrapeGauge({
      name: 'plank_slow_clients',
      help: 'Connections that have read nothing for 3 s while bytes wait for them, or that are catching up with 64 kB or more unsent',
      registers,
    }),
    ringBytes: new Gauge({
      name: 'plank_ring_bytes',
      help: 'Memory of the recent log and its frames, limited by RING_BYTES: whole buffers and the objects around them',
      registers,
    }),
    heldBytes: new ScrapeGauge({
      name: 'plank_history_held_bytes',
      help: 'Memory of pages of history that slow clients have not read yet, limited by RING_BYTES',
      registers,
    }),
    canarySeconds: new Histogram({
      name: 'plank_canary_seconds',
      help: "From the commit of a canary, by Postgres' clock, until this replica would have written it to sockets, by its own clock; skew between the two clocks shifts it, a negative value counts as 0",
      buckets: latencyBuckets,
      registers,
    }),
    canariesMissed: new Counter({
      name: 'plank_canary_missed_total',
      help: 'Canaries that did not arrive in time: changes do not arrive while this grows',
      registers,
    }),
  };
}

/** The metrics of HTTP requests to a gateway, except event streams. */
export function httpMetrics(registry: Registry) {
  const registers = [registry];
  return {
    requests: new Counter({
      name: 'plank_http_requests_total',
      help: 'HTTP requests by method, route and status (0: the client left before the answer)',
      labelNames: ['method', 'route', 'status'],
      registers,
    }),
    seconds: new Histogram({
      name: 'plank_http_request_duration_seconds',
      help: 'From the arrival of an HTTP request to the end of its answer, in seconds',
      labelNames: ['method', 'route'],
      buckets: [0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10],
      registers,
    }),
  };
}
