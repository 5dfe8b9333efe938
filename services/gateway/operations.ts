/**
 * What operators see and do, on a port of its own (OPS_PORT): never among what clients can reach. Where OPS_TOKEN is set, each
 * request must bring it, as `Authorization: Bearer …`.
 */
import { createHash, timingSafeEqual } from 'node:crypto';
import { createServer, type Server } from 'node:http';
import type { AddressInfo } from 'node:net';
import express, { type RequestHandler } from 'express';
import type { GatewayConfig } from '#shared/config.ts';
import { PlankError } from '#shared/errors.ts';
import type { Log } from '#shared/log.ts';
import { once } from '#shared/retry.ts';
import type { Roster } from '#shared/roster.ts';
import { methodNotAllowed, named, notFound, problemHandler } from './problems.ts';

interface OperationsOptions {
  config: Pick<GatewayConfig, 'OPS_PORT' | 'OPS_HOST' | 'OPS_TOKEN'>;
  roster: Roster;
  log: Log;
}

export class Operations {
  readonly #options: OperationsOptions;
  readonly #server: Server;

  constructor(options: OperationsOptions) {
    this.#options = options;
    const { config, roster, log } = options;
    const app = express();
    app.disable('x-powered-by');
    app.set('query parser', 'simple');
    app.use((_request, response, next) => {
      response.set({ 'X-Content-Type-Options': 'nosniff', 'Cache-Control': 'no-store' });
      next();
    });
    if (config.OPS_TOKEN !== undefined) app.use(requireToken(config.OPS_TOKEN));
    app
      .route('/ops/nodes')
      .all(named('/ops/nodes'))
      .get((_request, response) => void response.json(roster.nodes()))
      .all(methodNotAllowed('GET, HEAD'));
    app.use(notFound);
    app.use(problemHandler(log));
    this.#server = createServer({ headersTimeout: 10_000, requestTimeout: 30_000 }, app);
  }

  get port(): number {
    return (this.#server.address() as AddressInfo).port;
  }

  readonly start = once(async () => {
    const { OPS_PORT: port, OPS_HOST: host } = this.#options.config;
    await new Promise<void>((resolve, reject) => {
      this.#server.once('error', (error: NodeJS.ErrnoException) => {
        const taken = error.code === 'EADDRINUSE';
        reject(taken ? new Error(`port ${port}: address already in use; set OPS_PORT to another one`) : error);
      });
      this.#server.listen({ port, host }, resolve);
    });
  });

  readonly stop = once(async () => {
    this.#server.closeAllConnections();
    await new Promise((resolve) => this.#server.close(resolve));
  });
}

function requireToken(token: string): RequestHandler {
  const wanted = digest(`Bearer ${token}`);
  return (request, response, next) => {
    if (timingSafeEqual(wanted, digest(request.headers.authorization ?? ''))) return next();
    response.set('WWW-Authenticate', 'Bearer');
    next(new PlankError('UNAUTHORIZED', "this needs the operators' token (OPS_TOKEN)"));
  };
}

/** Of equal length whatever is given, so that the comparison tells nothing by its time. */
function digest(text: string): Buffer {
  return createHash('sha256').update(text).digest();
}
