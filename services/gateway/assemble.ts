/** Makes the parts of a gateway and wires them together. gateway.ts owns, starts and stops them. */
import { type Bus, LocalBus } from '#shared/bus/bus.ts';
import { type GatewayState, leaderIn } from '#shared/bus/node-state.ts';
import { Roster } from '#shared/bus/roster.ts';
import { LocalState, type SharedState } from '#shared/bus/shared-state.ts';
import type { Tail } from '#shared/log/fanout.ts';
import { LogReader } from '#shared/log/log-reader.ts';
import { createPool } from '#shared/postgres/postgres.ts';
import type { GatewayConfig } from '#shared/process/config.ts';
import type { Log } from '#shared/process/logger.ts';
import type { GatewayMetrics } from '#shared/process/metrics.ts';
import { version } from '#shared/process/version.ts';
import { Access } from './access/access.ts';
import { Draining } from './balance/draining.ts';
import { hasRoom } from './balance/fair-share.ts';
import { Rebalancer } from './balance/rebalancer.ts';
import { Catalog } from './catalog/catalog.ts';
import { Clients } from './clients/clients.ts';
import { EventStreams } from './clients/event-streams.ts';
import { Positions } from './clients/positions.ts';
import { Queries } from './clients/queries.ts';
import { Sockets } from './clients/sockets.ts';
import { Addresses } from './http/address.ts';
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
import { SetLoader, setConnections } from './relay/set-loader.ts';
import { Sets } from './relay/sets.ts';
import { Snapshots, snapshotConnections } from './relay/snapshot.ts';
import { Rights } from './rights/rights.ts';

/** a REST statement is given up after this long … */
const restMs = 10_000;
/** … and after this long if it waits for a lock that another transaction holds */
const restLockMs = 3_000;
/** limit for statements of the relay; most of them also have a shorter deadline in the code */
const relayMs = 120_000;
/** a search of the operators is given up after this time … */
const searchMs = 10_000;
/** … and a statement that the operators' console repeats every second is given up after this time */
const watchMs = 1_500;

export interface GatewayDeps {
  config: GatewayConfig;
  tail: Tail;
  bus?: Bus;
  shared?: SharedState;
  log: Log;
  metrics: GatewayMetrics;
}

/** Functions of the gateway that its parts call. */
export interface Owner {
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

/** The answer to an operator who drains or undrains a replica. */
export type Drained = { state: string; connections: number };

export type Parts = ReturnType<typeof assemble>;

export function assemble(
  { config, tail, bus = new LocalBus(), shared = new LocalState(), log, metrics }: GatewayDeps,
  owner: Owner,
) {
  const pools = createPools(config, log);
  const access = config.AUTH === 'jwt' ? new Access(config, { pool: pools.relay, shared, log, metrics }) : null;
  const catalog = new Catalog(pools.relay);
  const reader = new LogReader(pools.relay);
  const history = new History({ tail, reader: new LogReader(pools.history), metrics });
  const hub: Hub = new Hub({
    catalog,
    history,
    maxQueueBytes: config.MAX_QUEUE_BYTES,
    ringBytes: config.RING_BYTES,
    log,
    metrics,
  });
  const canaries = new CanaryWatch({
    reportedMs: () => leaderIn(roster.nodes())?.state.canaryEveryMs ?? null,
    log,
    metrics,
  });
  const freshness = new Freshness({
    place: () => hub,
    leader: () => leaderOf(roster),
    ask: () => feed.extent(),
    canaryLate: () => canaries.late,
    others: () => freshMsOfOthers(roster),
    log,
  });
  const databaseCheck = new DatabaseCheck(pools.relay, () => freshness.hearsPostgres);
  const sets =
    pools.sets &&
    new Sets({
      loader: new SetLoader(pools.sets),
      seq: () => hub.seq,
      recent: (seq) => hub.recent(seq),
      metrics,
    });
  const feed: Feed = new Feed({
    history,
    tail,
    reader,
    catalog,
    hub,
    canaries,
    freshness,
    revocations: access?.revocations ?? null,
    sets,
    log,
    metrics,
  });
  const snapshots = new Snapshots(pools.snapshots, access?.revocations ?? null, metrics);
  const rights = new Rights({ catalog, log });
  const queries = new Queries({ catalog, rights }, sets, log);
  const clients = new Clients({ max: config.MAX_CONNECTIONS, seq: () => hub.seq });
  const positions = new Positions(hub, () => freshness.isFresh);
  const addresses = new Addresses(config.TRUSTED_PROXIES);
  const deps = { access, addresses, catalog, queries, clients, hub, feed, snapshots, positions, log, metrics };
  const sockets = new Sockets({ config, ...deps });
  const events = new EventStreams({ ...deps, stallTimeoutMs: config.STALL_TIMEOUT_MS });
  const roster: Roster = new Roster({
    bus,
    node: config.NODE_NAME,
    role: 'gateway',
    version,
    state: owner.state,
    log,
  });
  showGauges({
    metrics,
    hub,
    catalog,
    clients,
    headSeq: () => leaderIn(roster.nodes())?.state.headSeq ?? null,
    isReady: () => owner.ready().ready,
    isFresh: () => freshness.isFresh,
  });
  const draining: Draining = new Draining({
    clients,
    windowMs: config.DRAIN_WINDOW_MS,
    log,
    onChange: () => roster.announce(),
  });
  const rebalancer = new Rebalancer({
    roster,
    own: owner.state,
    clients,
    perSecond: config.SHED_PER_SECOND,
    log,
    metrics,
  });
  roster.handle('drain', owner.drain);
  roster.handle('undrain', owner.undrain);
  const operators = new Console({
    node: config.NODE_NAME,
    roster,
    pool: pools.search,
    watchPool: pools.watch,
    tail,
    catalog,
    hub,
    history,
    clients,
    rights,
    mode: () => feed.mode,
  });
  const operations = new Operations({
    config,
    roster,
    console: operators,
    addresses,
    sockets,
    log,
  });
  const app = createApp({
    config,
    log,
    catalog,
    rights,
    pool: pools.rest,
    health: owner.health,
    ready: owner.ready,
    room: () => hasRoom(owner.state()) && !rebalancer.crowded,
    tickets: access && access.tickets,
    limits: access && access.limits,
    identifying: access && { identities: access.identities, addresses },
    changes: events,
    registry: metrics.registry,
  });
  return {
    access,
    sets,
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
    rebalancer,
    app,
  };
}

/**
 * One pool for each purpose, so that the relay's own work never waits behind requests of clients. The
 * feed, the catalog and the health check share the pool `relay`. Work that can take long has other
 * pools.
 */
function createPools(config: GatewayConfig, log: Log) {
  const onError = (error: Error) => log.debug({ err: error }, 'an idle connection failed');
  const poolFor = (purpose: string, max: number, statementTimeoutMs: number) =>
    createPool(config.DATABASE_URL, {
      applicationName: `plank gateway (${purpose})`,
      statementTimeoutMs,
      isOwnNamesOnly: true,
      max,
      idleTimeoutMs: 2_000,
      onError,
    });
  return {
    rest: createPool(config.DATABASE_URL, {
      applicationName: 'plank gateway',
      statementTimeoutMs: restMs,
      lockTimeoutMs: restLockMs,
      max: config.POOL_SIZE,
      onError,
    }),
    relay: poolFor('relay', 3, relayMs),
    history: poolFor('log', 5, relayMs),
    /** snapshots, which read at their clients' pace */
    snapshots: poolFor('rows', snapshotConnections, relayMs),
    /** sets of policies; null: AUTH=off */
    sets: config.AUTH === 'jwt' ? poolFor('sets', setConnections, relayMs) : null,
    /** searches of the outbox by operators */
    search: poolFor('search', 1, searchMs),
    /** statements that the operators' console repeats, also during a search */
    watch: poolFor('watch', 1, watchMs),
  };
}
