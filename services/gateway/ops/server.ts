/**
 * The operators' HTTP server, on its own port (OPS_PORT). The public port serves nothing of it. access.ts
 * decides who may use the server; only the files of the console need no permission.
 */
import { createServer, type IncomingMessage, type Server } from 'node:http';
import type { AddressInfo, Server as TcpServer } from 'node:net';
import type { Duplex } from 'node:stream';
import express from 'express';
import type { Roster } from '#shared/bus/roster.ts';
import type { GatewayConfig } from '#shared/process/config.ts';
import { close, listen } from '#shared/process/listen.ts';
import type { Log } from '#shared/process/logger.ts';
import { once } from '#shared/waiting.ts';
import { refuse, type Sockets } from '../clients/sockets.ts';
import type { Addresses } from '../http/address.ts';
import { onUpgrade } from '../http/pipelined-upgrades.ts';
import { problemHandler } from '../http/problem-handler.ts';
import { methodNotAllowed, named, notFound, upgradeRequired } from '../http/routes.ts';
import { foreign, OpsAccess, tooMany } from './access.ts';
import type { Console } from './console.ts';
import { drainRoutes } from './drain.ts';
import { opsPages } from './pages.ts';

interface OperationsOptions {
  config: Pick<GatewayConfig, 'OPS_PORT' | 'OPS_HOST' | 'OPS_TOKEN'>;
  roster: Roster;
  console: Console;
  addresses: Addresses;
  /** serves /ws on this port too, as the console shows the latest changes */
  sockets: Pick<Sockets, 'upgrade'>;
  log: Log;
}

export class Operations {
  readonly #options: OperationsOptions;
  readonly #access: OpsAccess;
  readonly #server: Server;
  #also: TcpServer[] = [];

  constructor(options: OperationsOptions) {
    this.#options = options;
    this.#access = new OpsAccess(options.config.OPS_TOKEN, options.addresses);
    const { roster, console, log } = options;
    const app = express();
    app.disable('x-powered-by');
    app.set('query parser', 'simple');
    app.use((_request, response, next) => {
      response.set({
        'Content-Security-Policy':
          "default-src 'self'; connect-src 'self'; base-uri 'none'; form-action 'self'; frame-ancestors 'none'",
        'Referrer-Policy': 'no-referrer',
        'X-Content-Type-Options': 'nosniff',
        'Cache-Control': 'no-store',
      });
      next();
    });
    app.use(opsPages());
    app.use(this.#access.guard);
    app.route('/ops/session').all(named('/ops/session')).post(this.#access.open).all(methodNotAllowed('POST'));
    app.use(console.router());
    app
      .route('/ops/nodes')
      .all(named('/ops/nodes'))
      .get((_request, response) => void response.json(roster.nodes()))
      .all(methodNotAllowed('GET, HEAD'));
    app.route('/ws').all(named('/ws')).get(upgradeRequired).all(methodNotAllowed('GET'));
    app.use(drainRoutes(roster));
    app.use(notFound);
    app.use(problemHandler(log));
    this.#server = createServer({ headersTimeout: 10_000, requestTimeout: 30_000 }, app);
    onUpgrade(this.#server, (request, socket, head) => this.#upgrade(request, socket, head));
  }

  get port(): number {
    return (this.#server.address() as AddressInfo).port;
  }

  readonly start = once(async () => {
    const { OPS_PORT: port, OPS_HOST: host } = this.#options.config;
    this.#also = await listen(this.#server, { host, port, settings: { host: 'OPS_HOST', port: 'OPS_PORT' } });
    this.#options.console.start();
  });

  readonly stop = once(async () => {
    this.#options.console.stop();
    this.#server.closeAllConnections();
    await Promise.all([this.#server, ...this.#also].map(close));
  });

  #upgrade(request: IncomingMessage, socket: Duplex, head: Buffer): void {
    socket.on('error', () => socket.destroy());
    if (!this.#access.isOwn(request)) return refuse(socket, '403 Forbidden', foreign);
    const seconds = this.#access.secondsUntilChecked(request);
    if (seconds > 0) return refuse(socket, '429 Too Many Requests', tooMany(seconds));
    if (!this.#access.isAdmitted(request))
      return refuse(
        socket,
        '401 Unauthorized',
        "this needs the operators' token (OPS_TOKEN), or the cookie of a session",
      );
    this.#options.sockets.upgrade(request, socket, head, { isOwn: true });
  }
}
