/**
 * One gateway. It owns its parts (assemble.ts makes them), the order in which they start and stop,
 * and the report of its health. A gateway stores nothing, so any number of gateways may run.
 */
import { createServer, type Server } from 'node:http';
import { type AddressInfo, Server as TcpServer } from 'node:net';
import type { GatewayState } from '#shared/bus/node-state.ts';
import type { GatewayConfig } from '#shared/process/config.ts';
import type { Service } from '#shared/process/lifecycle.ts';
import { close, isLoopback, listen, openWarning } from '#shared/process/listen.ts';
import type { Log } from '#shared/process/logger.ts';
import { once } from '#shared/waiting.ts';
import { formatPosition } from '#shared/wire.ts';
import { assemble, type Drained, type GatewayDeps, type Parts, type Readiness } from './assemble.ts';
import { allAccepted } from './balance/accepted.ts';
import type { Health } from './http/app.ts';
import { onUpgrade } from './http/pipelined-upgrades.ts';
import { gatewayFigures } from './ops/gateway-figures.ts';

/** a proxy's idle connections stay open this long: longer than the proxy itself keeps them (nginx.conf: 3 s) */
const lingerMs = 3_500;
/** after `lingerMs`, requests in progress get this long */
const cutMs = 2_000;

export class Gateway implements Service {
  readonly #config: GatewayConfig;
  readonly #log: Log;
  readonly #parts: Parts;
  readonly #server: Server;
  #also: TcpServer[] = [];
  readonly #startedAt = Date.now();
  #stopping = false;
  #isProxied = false;

  constructor(deps: GatewayDeps) {
    this.#config = deps.config;
    this.#log = deps.log;
    this.#parts = assemble(deps, {
      state: () => this.#state(),
      health: () => this.#health(),
      ready: () => this.#ready(),
      drain: () => this.#drain(),
      undrain: () => this.#undrain(),
    });
    const { app, sockets } = this.#parts;
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
    onUpgrade(this.#server, (request, socket, head) => sockets.upgrade(request, socket, head));
  }

  get port(): number {
    return (this.#server.address() as AddressInfo).port;
  }

  /** The port for operators. */
  get opsPort(): number {
    return this.#parts.operations.port;
  }

  readonly start = once(async () => {
    await this.#parts.feed.start();
    this.#parts.canaries.start();
    this.#parts.freshness.start();
    this.#parts.access?.expiries.start();
    this.#parts.sets?.start();
    this.#parts.sockets.start();
    this.#parts.events.start();
    await this.#parts.operations.start();
    const { HOST: host, PORT: port } = this.#config;
    const settings = { host: 'HOST', port: 'PORT' };
    this.#also = await listen(this.#server, { host, port, settings, backlog: 4_096 });
    if (this.#config.AUTH === 'off' && !isLoopback(host)) this.#log.warn(openWarning(host));
    this.#parts.roster.start();
    this.#parts.rebalancer.start();
  });

  /** From the first moment, the gateway is not ready. It sends its clients away before it stops any part they need. */
  readonly stop = once(async () => {
    this.#stopping = true;
    const stoppedAt = performance.now();
    this.#parts.rebalancer.stop();
    await allAccepted(this.#server);
    // Only the listening socket closes here. http's own close would end idle connections at once. A
    // POST that a proxy sends at that moment on an idle connection would be lost. The proxy itself
    // closes its connections, after an answer or when they have been idle for long.
    const closed = Promise.all([
      new Promise((resolve) => TcpServer.prototype.close.call(this.#server, resolve)),
      ...this.#also.map(close),
    ]);
    const graceMs = this.#isProxied ? lingerMs : 0;
    const idle = setTimeout(() => this.#server.closeIdleConnections(), graceMs);
    this.#parts.roster.announce();
    await this.#parts.draining.drain();
    const leftMs = Math.max(0, stoppedAt + graceMs - performance.now());
    const cut = setTimeout(() => this.#server.closeAllConnections(), leftMs + cutMs);
    await this.#parts.clients.allGone();
    this.#parts.access?.expiries.stop();
    this.#parts.sets?.stop();
    this.#parts.events.stop();
    this.#parts.sockets.stop();
    await closed;
    clearTimeout(idle);
    clearTimeout(cut);
    // http's own close also stops the timer that checks for slow requests
    this.#server.close();
    await this.#parts.feed.stop();
    this.#parts.canaries.stop();
    this.#parts.freshness.stop();
    await this.#parts.roster.stop();
    await this.#parts.operations.stop();
    await Promise.all(Object.values(this.#parts.pools).map(async (pool) => pool?.end()));
  });

  async #health(): Promise<Health> {
    const database = await this.#parts.databaseCheck.answer();
    const { ready, reason: unready } = this.#ready();
    const { isFresh, listener, staleMs } = this.#parts.freshness;
    const reason =
      unready ?? this.#parts.freshness.reason ?? (database === 'connected' ? null : 'Postgres does not answer');
    return {
      status: ready && isFresh && database === 'connected' ? 'ok' : 'degraded',
      ...(reason === null ? {} : { reason }),
      node: this.#config.NODE_NAME,
      auth: this.#config.AUTH,
      connections: this.#connections,
      database,
      listener,
      stale_ms: staleMs,
      changes: this.#parts.feed.mode,
      position: formatPosition(this.#parts.hub),
      uptime_s: Math.round((Date.now() - this.#startedAt) / 1_000),
    };
  }

  /** For an operator: sends the clients away. The process goes on without clients until `undrain` or its end. */
  #drain(): Drained {
    void this.#parts.draining.drain();
    return { state: this.#parts.draining.state, connections: this.#connections };
  }

  #undrain(): Drained {
    if (this.#stopping) throw new Error('this replica is stopping');
    this.#parts.draining.undrain();
    return { state: this.#parts.draining.state, connections: this.#connections };
  }

  get #connections(): number {
    return this.#parts.clients.size;
  }

  /** What this replica reports to the others. */
  #state(): GatewayState {
    return {
      ...gatewayFigures(this.#parts.hub, this.#parts.clients),
      ...this.#ready(),
      auth: this.#config.AUTH,
      draining: this.#parts.draining.state !== 'serving',
      connections: this.#connections,
      limit: this.#config.MAX_CONNECTIONS,
      changes: this.#parts.feed.mode,
      position: formatPosition(this.#parts.hub),
      moving: this.#parts.rebalancer.moving,
      canaryMs: this.#parts.canaries.lastMs,
      canaryLate: this.#parts.canaries.late,
      freshMs: this.#parts.freshness.freshMs,
      staleReason: this.#parts.freshness.reason,
    };
  }

  #ready(): Readiness {
    if (this.#stopping) return { ready: false, reason: 'stopping' };
    if (this.#parts.draining.state !== 'serving') return { ready: false, reason: 'drained by an operator' };
    if (!this.#parts.feed.fresh)
      return { ready: false, reason: 'neither the stream nor the log in Postgres can be read' };
    if (this.#parts.freshness.isLeftBehind)
      return { ready: false, reason: `others get changes, this replica does not: ${this.#parts.freshness.reason}` };
    return { ready: true };
  }
}
