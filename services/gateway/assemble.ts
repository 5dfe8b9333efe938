/** Makes the parts of a gateway and connects them. gateway.ts owns, starts and stops them. */
import { type Bus, LocalBus } from '#shared/bus/bus.ts';
import { type GatewayState, leaderIn } from '#shared/bus/node-state.ts';
import { Roster } from '#shared/bus/roster.ts';
import type { Tail } from '#shared/log/fanout.ts';
import { LogReader } from '#shared/log/log-reader.ts';
import { createPool, type Pool } from '#shared/postgres/postgres.ts';
import type { GatewayConfig } from '#shared/process/config.ts';
import type { Log } from '#shared/process/logger.ts';
import type { GatewayMetrics } from '#shared/process/metrics.ts';
import { version } from '#shared/process/version.ts';
import { Draining } from './balance/draining.ts';
import { Shedder } from './balance/rebalancer.ts';
import { hasRoom } from './balance/rebalancing.ts';
import { Catalog } from './catalog/catalog.ts';
import { Clients } from './clients/clients.ts';
import { EventStreams } from './clients/event-streams.ts';
import { Positions } from './clients/positions.ts';
import { Sockets } from './clients/sockets.ts';
import { createApp, type Health } from './http/app.ts';
import { Console } from './ops/console.ts';
import { DatabaseCheck } from './ops/database-check.ts';
import { showGauges } from './ops/gauges.ts';
import { freshMsOfOthers, leaderOf } from './ops/other-processes.ts';
import { Operations } from './ops/server.ts';
import { CanaryWatch } from './relay/canary.ts';
import { Feed } from './relay/feed.ts';
import { Freshness } from './relay/freshness.ts';
import { History } from './relay/history.ts';
import { Hub } from './relay/hub.ts';
import { Snapshots, snapshotConnections } from './relay/snapshot.ts';

/** a REST statement is given up after this long … */
const restMs = 10_000;
/** … and after this long where it waits for a lock that another transaction holds */
const restLockMs = 3_000;
/** what operators look for is given up after this time … */
const searchMs = 10_000;
/** … and what their console asks every second */
const watchMs = 1_500;

export interface GatewayDeps {
  config: GatewayConfig;
  tail: Tail;
  bus?: Bus;
  log: Log;
  metrics: GatewayMetrics;
}

/** What the parts ask of the gateway that owns them. */
export interface Own {
  readonly state: () => GatewayState;
  readonly health: () => Promise<Health>;
  readonly ready: () => Readiness;
  readonly drain: () => Drained;
  readonly undrain: () => Drained;
}

export interface Readiness {
  ready: boolean;
  reason?: string;
}

/** What an operator hears who drains a replica, or undoes it. */
export type Drained = { state: string; connections: number };

export type Parts = ReturnType<typeof assemble>;

export function assemble({ config, tail, bus = new LocalBus(), log, metrics }: GatewayDeps, own: Own) {
  const onError = (error: Error) => log.debug({ err: error }, 'an idle connection failed');
  const restPool = createPool(config.DATABASE_URL, {
    applicationName: 'plank gateway',
    statementTimeoutMs: restMs,
    lockTimeoutMs: restLockMs,
    max: config.POOL_SIZE,
    onError,
  });
  const poolFor = (what: string, max: number, statementTimeoutMs: number) =>
    createPool(config.DATABASE_URL, {
      applicationName: `plank gateway (${what})`,
      statementTimeoutMs,
      isOwnNamesOnly: true,
      max,
      idleTimeoutMs: 2_000,
      onError,
    });
  // What the relay itself needs never waits behind what clients ask for: the feed, the catalog and the health check have
  // connections of their own, and whatever may take long has its own as well: reads of history …
  const relayPool = poolFor('relay', 3, 120_000);
  const historyPool = poolFor('log', 5, 120_000);
  // … snapshots, which wait for their clients …
  const snapshotPool = poolFor('rows', snapshotConnections, 120_000);
  // … what operators look for in the outbox, and what their console shows meanwhile
  const searchPool = poolFor('search', 1, searchMs);
  const watchPool = poolFor('watch', 1, watchMs);
  const pools: readonly Pool[] = [restPool, relayPool, historyPool, snapshotPool, searchPool, watchPool];
  const catalog = new Catalog(relayPool);
  const reader = new LogReader(relayPool);
  const history = new History({ tail, reader: new LogReader(historyPool), metrics });
  const hub: Hub = new Hub({
    catalog,
    history,
    maxQueueBytes: config.MAX_QUEUE_BYTES,
    ringBytes: config.RING_BYTES,
    log,
    metrics,
  });
  const canaries = new CanaryWatch({ told: () => leaderIn(roster.nodes())?.state.canaryEveryMs ?? null, log, metrics });
  const freshness = new Freshness({
    place: () => hub,
    leader: () => leaderOf(roster),
    ask: () => feed.extent(),
    canaryLate: () => canaries.late,
    others: () => freshMsOfOthers(roster),
    log,
  });
  const databaseCheck = new DatabaseCheck(relayPool, () => freshness.hearsPostgres);
  const feed: Feed = new Feed({
    history,
    tail,
    reader,
    catalog,
    hub: hub,
    canaries: canaries,
    freshness: freshness,
    log,
    metrics,
    onHistoryLost: () => hub.loseHistory(),
    onShape: (concerned) => {
      for (const { listeners } of concerned) listeners.onAltered?.();
    },
  });
  const snapshots = new Snapshots(snapshotPool, metrics);
  const isFull = () => sockets.count + events.count >= config.MAX_CONNECTIONS;
  const isLeaving = () => draining.state !== 'serving';
  const positions = new Positions(hub, () => freshness.isFresh);
  const deps = { catalog, hub: hub, feed: feed, snapshots, positions, log, metrics, isFull, isLeaving };
  const sockets = new Sockets({ config, ...deps });
  const events = new EventStreams({ ...deps, stallTimeoutMs: config.STALL_TIMEOUT_MS });
  const clients = new Clients([sockets, events], () => hub.seq);
  const roster: Roster = new Roster({
    bus,
    node: config.NODE_NAME,
    role: 'gateway',
    version,
    state: own.state,
    log,
  });
  showGauges({
    metrics,
    hub: hub,
    catalog,
    clients: clients,
    sockets: sockets,
    events: events,
    headSeq: () => leaderIn(roster.nodes())?.state.headSeq ?? null,
    isReady: () => own.ready().ready,
    isFresh: () => freshness.isFresh,
  });
  const guests = () => [sockets.guests(), events.guests()];
  const draining: Draining = new Draining({
    guests,
    windowMs: config.DRAIN_WINDOW_MS,
    log,
    onChange: () => roster.announce(),
  });
  const shedder = new Shedder({
    roster: roster,
    own: own.state,
    guests,
    perSecond: config.SHED_PER_SECOND,
    log,
    metrics,
  });
  roster.handle('drain', own.drain);
  roster.handle('undrain', own.undrain);
  const operators = new Console({
    node: config.NODE_NAME,
    roster: roster,
    pool: searchPool,
    watchPool,
    tail,
    catalog,
    hub: hub,
    history,
    clients: clients,
    mode: () => feed.mode,
  });
  const operations = new Operations({
    config,
    roster: roster,
    console: operators,
    sockets: sockets,
    log,
  });
  const app = createApp({
    config,
    log,
    catalog,
    pool: restPool,
    health: own.health,
    ready: own.ready,
    room: () => hasRoom(own.state()) && !shedder.crowded,
    changes: events,
    registry: metrics.registry,
  });
  return {
    pools,
    hub,
    feed,
    canaries,
    freshness,
    databaseCheck,
    sockets,
    events,
    clients,
    roster,
    operations,
    draining,
    shedder,
    app,
  };
}
