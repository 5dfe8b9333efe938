/** One gateway: owns its parts, their order of start and stop, and what it says of its health. Stateless: any number may run. */
import { createServer, type Server } from 'node:http';
import { type AddressInfo, Server as TcpServer } from 'node:net';
import { type Bus, LocalBus } from '#shared/bus.ts';
import { Catalog } from '#shared/catalog.ts';
import type { GatewayConfig } from '#shared/config.ts';
import type { Tail } from '#shared/fanout.ts';
import type { Service } from '#shared/lifecycle.ts';
import { close, isLoopback, listen, openWarning } from '#shared/listen.ts';
import type { Log } from '#shared/log.ts';
import { LogReader } from '#shared/log-reader.ts';
import type { GatewayMetrics } from '#shared/metrics.ts';
import { createPool, type Pool } from '#shared/postgres.ts';
import { once } from '#shared/retry.ts';
import { Roster } from '#shared/roster.ts';
import { version } from '#shared/version.ts';
import { formatPosition } from '#shared/wire.ts';
import { allAccepted } from './accepting.ts';
import { CanaryWatch } from './canary.ts';
import { Clients } from './clients.ts';
import { Console } from './console.ts';
import { DatabaseCheck } from './database-check.ts';
import { Draining } from './draining.ts';
import { EventStreams } from './event-stream.ts';
import { Feed } from './feed.ts';
import { Freshness, type LeaderSaid } from './freshness.ts';
import { type GatewayFigures, gatewayFigures } from './gateway-state.ts';
import { showGauges } from './gauges.ts';
import { History } from './history.ts';
import { createApp, type Health } from './http.ts';
import { Hub } from './hub.ts';
import { Operations } from './operations.ts';
import { Positions } from './positions.ts';
import { Shedder } from './shedder.ts';
import { hasRoom } from './shedding.ts';
import { Snapshots, snapshotConnections } from './snapshot.ts';
import { Sockets } from './sockets.ts';

/** a REST statement is given up after this long … */
const restMs = 10_000;
/** … and after this long where it waits for a lock that another transaction holds */
const restLockMs = 3_000;
/** a proxy's idle connections are left open this long, longer than it keeps them itself (nginx.conf: 3 s) */
const lingerMs = 3_500;
/** then requests in progress get this long */
const cutMs = 2_000;
/** what operators look for is given up after this time … */
const searchMs = 10_000;
/** … and what their console asks every second */
const watchMs = 1_500;

/** A gateway's own part of its status in the roster. */
export type GatewayState = Record<string, unknown> &
  GatewayFigures & {
    ready: boolean;
    draining: boolean;
    connections: number;
    limit: number;
    /** where changes come from: the stream, or the log in Postgres */
    changes: 'tailing' | 'reading';
    position: string;
    /** connections that were asked to go elsewhere and may be nowhere: see shedding.ts */
    moving: number;
    /** how long the last canary took; null: none has come */
    canaryMs: number | null;
    /** the one that should have come has not */
    canaryLate: boolean;
    /** for how long changes can arrive without a doubt; 0: there is one */
    freshMs: number;
    /** why there is; null: none */
    staleReason: string | null;
  };

export class Gateway implements Service {
  readonly #config: GatewayConfig;
  readonly #log: Log;
  readonly #databaseCheck: DatabaseCheck;
  readonly #pools: readonly Pool[];
  readonly #hub: Hub;
  readonly #feed: Feed;
  readonly #canaries: CanaryWatch;
  readonly #freshness: Freshness;
  readonly #sockets: Sockets;
  readonly #events: EventStreams;
  readonly #clients: Clients;
  readonly #roster: Roster;
  readonly #operations: Operations;
  readonly #draining: Draining;
  readonly #shedder: Shedder;
  readonly #server: Server;
  #also: TcpServer[] = [];
  readonly #startedAt = Date.now();
  #stopping = false;
  #isProxied = false;

  constructor({
    config,
    tail,
    bus = new LocalBus(),
    log,
    metrics,
  }: { config: GatewayConfig; tail: Tail; bus?: Bus; log: Log; metrics: GatewayMetrics }) {
    this.#config = config;
    this.#log = log;
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
    this.#pools = [restPool, relayPool, historyPool, snapshotPool, searchPool, watchPool];
    const catalog = new Catalog(relayPool);
    const reader = new LogReader(relayPool);
    const history = new History({ tail, reader: new LogReader(historyPool), metrics });
    this.#hub = new Hub({
      catalog,
      history,
      maxQueueBytes: config.MAX_QUEUE_BYTES,
      ringBytes: config.RING_BYTES,
      log,
      metrics,
    });
    this.#canaries = new CanaryWatch({ told: () => this.#told('canaryEveryMs'), log, metrics });
    this.#freshness = new Freshness({
      place: () => this.#hub,
      leader: () => this.#leader(),
      ask: () => this.#feed.extent(),
      canaryLate: () => this.#canaries.late,
      others: () => this.#otherFreshMs(),
      log,
    });
    this.#databaseCheck = new DatabaseCheck(relayPool, () => this.#freshness.hearsPostgres);
    this.#feed = new Feed({
      history,
      tail,
      reader,
      catalog,
      hub: this.#hub,
      canaries: this.#canaries,
      freshness: this.#freshness,
      log,
      metrics,
      onHistoryLost: () => this.#hub.loseHistory(),
      onShape: (concerned) => {
        for (const { listeners } of concerned) listeners.onAltered?.();
      },
    });
    const snapshots = new Snapshots(snapshotPool, metrics);
    const isFull = () => this.#connections >= config.MAX_CONNECTIONS;
    const isLeaving = () => this.#draining.state !== 'serving';
    const positions = new Positions(this.#hub, () => this.#freshness.isFresh);
    const deps = { catalog, hub: this.#hub, feed: this.#feed, snapshots, positions, log, metrics, isFull, isLeaving };
    this.#sockets = new Sockets({ config, ...deps });
    this.#events = new EventStreams({ ...deps, stallTimeoutMs: config.STALL_TIMEOUT_MS });
    this.#clients = new Clients([this.#sockets, this.#events], () => this.#hub.seq);
    this.#roster = new Roster({
      bus,
      node: config.NODE_NAME,
      role: 'gateway',
      version,
      state: () => this.#state(),
      log,
    });
    showGauges({
      metrics,
      hub: this.#hub,
      catalog,
      clients: this.#clients,
      sockets: this.#sockets,
      events: this.#events,
      headSeq: () => this.#told('headSeq'),
      isReady: () => this.#ready().ready,
      isFresh: () => this.#freshness.isFresh,
    });
    const guests = () => [this.#sockets.guests(), this.#events.guests()];
    this.#draining = new Draining({
      guests,
      windowMs: config.DRAIN_WINDOW_MS,
      log,
      onChange: () => this.#roster.announce(),
    });
    this.#shedder = new Shedder({
      roster: this.#roster,
      own: () => this.#state(),
      guests,
      perSecond: config.SHED_PER_SECOND,
      log,
      metrics,
    });
    this.#roster.handle('drain', () => this.#drainAsAsked());
    this.#roster.handle('undrain', () => this.#undrainAsAsked());
    const operators = new Console({
      node: config.NODE_NAME,
      roster: this.#roster,
      pool: searchPool,
      watchPool,
      tail,
      catalog,
      hub: this.#hub,
      history,
      clients: this.#clients,
      mode: () => this.#feed.mode,
    });
    this.#operations = new Operations({
      config,
      roster: this.#roster,
      console: operators,
      sockets: this.#sockets,
      log,
    });
    const app = createApp({
      config,
      log,
      catalog,
      pool: restPool,
      health: () => this.#health(),
      ready: () => this.#ready(),
      room: () => hasRoom(this.#state()) && !this.#shedder.crowded,
      changes: this.#events,
      registry: metrics.registry,
    });
    this.#server = createServer(
      {
        headersTimeout: 10_000,
        requestTimeout: 30_000,
        keepAliveTimeout: 65_000,
        // a client that offers HTTP/2 (curl --http2) gets its answer over HTTP/1.1
        shouldUpgradeCallback: (request) => request.headers.upgrade?.toLowerCase() === 'websocket',
      },
      app,
    );
    this.#server.prependListener('request', (request, response) => {
      if (request.headers['x-forwarded-for'] !== undefined) this.#isProxied = true;
      if (this.#stopping) response.setHeader('Connection', 'close');
    });
    this.#server.on('upgrade', (request, socket, head) => {
      if (this.#events.isOn(request.socket)) socket.destroy();
      else this.#sockets.upgrade(request, socket, head);
    });
  }

  get port(): number {
    return (this.#server.address() as AddressInfo).port;
  }

  /** Where operators are served. */
  get opsPort(): number {
    return this.#operations.port;
  }

  readonly start = once(async () => {
    await this.#feed.start();
    this.#canaries.start();
    this.#freshness.start();
    this.#sockets.start();
    this.#events.start();
    await this.#operations.start();
    const { HOST: host, PORT: port } = this.#config;
    const settings = { host: 'HOST', port: 'PORT' };
    this.#also = await listen(this.#server, { host, port, settings, backlog: 4_096 });
    if (!isLoopback(host)) this.#log.warn(openWarning(host));
    this.#roster.start();
    this.#shedder.start();
  });

  /** Not ready from the first moment; clients are told to come back before anything they need is taken away. */
  readonly stop = once(async () => {
    this.#stopping = true;
    const stoppedAt = performance.now();
    this.#shedder.stop();
    await allAccepted(this.#server);
    // Only the listening socket: http's own close ends idle connections at once, and a POST that a proxy sends on one of them
    // in that moment is lost. The proxy closes them itself, after an answer or when they have been idle for long.
    const closed = Promise.all([
      new Promise((resolve) => TcpServer.prototype.close.call(this.#server, resolve)),
      ...this.#also.map(close),
    ]);
    const graceMs = this.#isProxied ? lingerMs : 0;
    const idle = setTimeout(() => this.#server.closeIdleConnections(), graceMs);
    this.#roster.announce();
    await this.#draining.drain();
    const leftMs = Math.max(0, stoppedAt + graceMs - performance.now());
    const cut = setTimeout(() => this.#server.closeAllConnections(), leftMs + cutMs);
    this.#events.stop();
    await this.#sockets.stop();
    await closed;
    clearTimeout(idle);
    clearTimeout(cut);
    // as http's own close would: it ends the timer that looks for slow requests
    this.#server.close();
    await this.#feed.stop();
    this.#canaries.stop();
    this.#freshness.stop();
    await this.#roster.stop();
    await this.#operations.stop();
    await Promise.all(this.#pools.map((pool) => pool.end()));
  });

  async #health(): Promise<Health> {
    const database = await this.#databaseCheck.answer();
    const { ready, reason: unready } = this.#ready();
    const { isFresh, listener, staleMs } = this.#freshness;
    const reason = unready ?? this.#freshness.reason ?? (database === 'connected' ? null : 'Postgres does not answer');
    return {
      status: ready && isFresh && database === 'connected' ? 'ok' : 'degraded',
      ...(reason === null ? {} : { reason }),
      node: this.#config.NODE_NAME,
      connections: this.#connections,
      database,
      listener,
      stale_ms: staleMs,
      changes: this.#feed.mode,
      position: formatPosition(this.#hub),
      uptime_s: Math.round((Date.now() - this.#startedAt) / 1_000),
    };
  }

  /** An operator's wish: the process stays, without clients, until it is undone or the process stops. */
  #drainAsAsked(): { state: string; connections: number } {
    void this.#draining.drain();
    return { state: this.#draining.state, connections: this.#connections };
  }

  #undrainAsAsked(): { state: string; connections: number } {
    if (this.#stopping) throw new Error('this replica is stopping');
    this.#draining.undrain();
    return { state: this.#draining.state, connections: this.#connections };
  }

  get #connections(): number {
    return this.#sockets.count + this.#events.count;
  }

  /** What this replica says of itself to the others. */
  #state(): GatewayState {
    return {
      ...gatewayFigures(this.#hub, this.#clients),
      ...this.#ready(),
      draining: this.#draining.state !== 'serving',
      connections: this.#connections,
      limit: this.#config.MAX_CONNECTIONS,
      changes: this.#feed.mode,
      position: formatPosition(this.#hub),
      moving: this.#shedder.moving,
      canaryMs: this.#canaries.lastMs,
      canaryLate: this.#canaries.late,
      freshMs: this.#freshness.freshMs,
      staleReason: this.#freshness.reason,
    };
  }

  /** A number that the leader says of itself; null where no leader is heard. */
  #told(field: string): number | null {
    for (const { role, state } of this.#roster.nodes()) {
      const value = state[field];
      if (role === 'listener' && state.state === 'leading' && typeof value === 'number') return value;
    }
    return null;
  }

  /** What the leading listener says of itself; null where none is heard. */
  #leader(): LeaderSaid | null {
    for (const { role, node, instance, state } of this.#roster.nodes()) {
      const { headSeq, epoch, owedMs } = state;
      const heardAt = this.#roster.heardAt(instance);
      if (role !== 'listener' || state['state'] !== 'leading' || heardAt === null) continue;
      if (typeof headSeq !== 'number' || typeof epoch !== 'number') continue;
      return { node, epoch, headSeq, at: heardAt - (typeof owedMs === 'number' ? owedMs : 0) };
    }
    return null;
  }

  #otherFreshMs(): number[] {
    return this.#roster.nodes().flatMap(({ role, instance, state }) => {
      const { freshMs } = state;
      const isOther = role === 'gateway' && instance !== this.#roster.instance;
      return isOther && state['ready'] === true && typeof freshMs === 'number' ? [freshMs] : [];
    });
  }

  #ready(): { ready: boolean; reason?: string } {
    if (this.#stopping) return { ready: false, reason: 'stopping' };
    if (this.#draining.state !== 'serving') return { ready: false, reason: 'drained by an operator' };
    if (!this.#feed.fresh) return { ready: false, reason: 'neither the stream nor the log in Postgres can be read' };
    if (this.#freshness.isLeftBehind)
      return { ready: false, reason: `others get changes, this replica does not: ${this.#freshness.reason}` };
    return { ready: true };
  }
}
