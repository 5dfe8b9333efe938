/**
 * The express app on the gateway's public port: health, metrics, tables over REST, the test page and the
 * SDK for pages without a bundler. The app owns no sockets: gateway.ts makes the server, gives requests to
 * this app, and passes upgrades on to the WebSocket side.
 */
import cors from 'cors';
import express, { type Express, type RequestHandler } from 'express';
import type { Registry } from 'prom-client';
import type { Pool } from '#shared/postgres/postgres.ts';
import type { GatewayConfig } from '#shared/process/config.ts';
import type { Log } from '#shared/process/logger.ts';
import { httpMetrics } from '#shared/process/metrics.ts';
import type { Limits } from '../access/limits.ts';
import type { Tickets } from '../access/tickets.ts';
import type { Catalog } from '../catalog/catalog.ts';
import type { Rights } from '../rights/rights.ts';
import { findViewer, type Identifying, limitRequests, ticketHandler, viewerOf } from './identity.ts';
import { fileRoutes, pageFiles, sdk, sendFile } from './pages.ts';
import { problemHandler } from './problem-handler.ts';
import { methodNotAllowed, named, notFound, routeOf, upgradeRequired } from './routes.ts';
import { isChanges } from './row-address.ts';
import { listTables } from './table-list.ts';
import { TableView } from './table-view.ts';
import { tablesRouter } from './tables.ts';

export interface Health {
  status: 'ok' | 'degraded';
  node: string;
  /** open WebSocket connections */
  connections: number;
  database: 'connected' | 'unreachable';
  [key: string]: unknown;
}

export interface AppDeps {
  config: Pick<GatewayConfig, 'CORS_ORIGINS' | 'MAX_BODY_BYTES' | 'AUTH_COOKIE'>;
  log: Log;
  catalog: Catalog;
  rights: Rights;
  pool: Pool;
  health: () => Promise<Health>;
  ready: () => { ready: boolean; reason?: string };
  /** whether new clients should come to this replica */
  room: () => boolean;
  /** whose clients may read and write rows; null: everybody */
  identifying?: Identifying | null;
  /** null: AUTH=off */
  tickets?: Tickets | null;
  limits?: Limits | null;
  /**
   * `handler` serves `GET /api/:table/changes`, server-sent events, and checks tokens itself; `guard`
   * runs before every request
   */
  changes?: { guard: RequestHandler; handler: RequestHandler };
  registry: Registry;
}

const pageHeaders = {
  'Content-Security-Policy':
    "default-src 'self'; connect-src 'self' ws: wss:; base-uri 'none'; form-action 'self'; frame-ancestors 'none'",
};
const readOnly = methodNotAllowed('GET, HEAD');

export function createApp(deps: AppDeps): Express {
  const { config, log, catalog, rights, pool, health, ready, room, changes, registry } = deps;
  const viewed = [
    findViewer(deps.identifying ?? null),
    limitRequests(deps.limits ?? null, deps.identifying?.addresses ?? null),
  ];
  const app = express();
  app.disable('x-powered-by');
  app.set('query parser', 'simple');

  app.use(measure(registry));
  if (changes) app.use(changes.guard);
  app.use((_request, response, next) => {
    response.set('X-Content-Type-Options', 'nosniff');
    next();
  });
  app.use(
    cors({
      origin: config.CORS_ORIGINS.includes('*') ? '*' : config.CORS_ORIGINS,
      credentials: config.AUTH_COOKIE !== undefined,
      exposedHeaders: [
        'Link',
        'ETag',
        'Location',
        'Plank-Next-Cursor',
        'Plank-Truncated',
        'Retry-After',
        'WWW-Authenticate',
      ],
      maxAge: 600,
    }),
  );

  app
    .route('/health')
    .all(named('/health'))
    .get(async (_request, response) => {
      const state = await health();
      response
        .status(state.status === 'ok' ? 200 : 503)
        .set('Cache-Control', 'no-store')
        .json(state);
    })
    .all(readOnly);
  app
    .route('/health/live')
    .all(named('/health/live'))
    .get((_request, response) => {
      response.set('Cache-Control', 'no-store').json({ status: 'ok' });
    })
    .all(readOnly);
  app
    .route('/health/ready')
    .all(named('/health/ready'))
    .get((_request, response) => {
      const state = ready();
      response
        .status(state.ready ? 200 : 503)
        .set('Cache-Control', 'no-store')
        .json(state);
    })
    .all(readOnly);
  // nginx requests this address before it sends a new client to this replica. This replica refuses with 403,
  // the only refusal that nginx never counts as a failure of the replica.
  app
    .route('/health/room')
    .all(named('/health/room'))
    .get((_request, response) => {
      const hasRoom = room();
      response
        .status(hasRoom ? 200 : 403)
        .set('Cache-Control', 'no-store')
        .json({ room: hasRoom });
    })
    .all(readOnly);
  app
    .route('/metrics')
    .all(named('/metrics'))
    .get(async (_request, response) => {
      response
        .type(registry.contentType)
        .set('Cache-Control', 'no-store')
        .send(await registry.metrics());
    })
    .all(readOnly);

  if (changes) {
    // without this, express would run the handler of GET for HEAD, and the stream of that handler never ends
    const route = app.route('/api/:table/:segment');
    route.all((request, _response, next) => next(isChanges(request.params.segment) ? undefined : 'route'));
    route
      .all(named('/api/:table/changes'))
      .head(methodNotAllowed('GET'))
      .get(changes.handler)
      .all(methodNotAllowed('GET'));
  }
  app.route('/ws').all(named('/ws')).get(upgradeRequired).all(methodNotAllowed('GET'));
  if (deps.identifying && deps.tickets)
    app
      .route('/auth/tickets')
      .all(named('/auth/tickets'))
      .post(ticketHandler(deps.identifying, deps.tickets, deps.limits ?? null))
      .all(methodNotAllowed('POST'));
  app.use('/api', ...viewed, tablesRouter({ pool, catalog, rights, maxBodyBytes: config.MAX_BODY_BYTES }));

  app
    .route('/try/tables.json')
    .all(named('/try/tables.json'), ...viewed)
    .get((_request, response) => {
      response
        .set('Cache-Control', 'no-store')
        .json(listTables(TableView.all(viewerOf(response), { catalog, rights })));
    })
    .all(readOnly);
  const testPage = new Map([['/', sendFile('try/index.html')], ...pageFiles(['try', 'common'])]);
  app.use(fileRoutes(testPage, { headers: pageHeaders }), fileRoutes(sdk()));

  app.use(notFound);
  app.use(problemHandler(log));
  return app;
}

function measure(registry: Registry): RequestHandler {
  const { requests, seconds } = httpMetrics(registry);
  return (request, response, next) => {
    const started = performance.now();
    response.once('close', () => {
      const { method } = request;
      const route = routeOf(response);
      requests.inc({ method, route, status: response.writableFinished ? response.statusCode : 0 });
      seconds.observe({ method, route }, (performance.now() - started) / 1000);
    });
    next();
  };
}
