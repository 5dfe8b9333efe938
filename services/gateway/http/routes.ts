/**
 * Handlers that routes share. They name a route for logs and metrics, and answer requests for which there
 * is no route or method.
 */
import type { RequestHandler, Response } from 'express';
import { PlankError, shorten } from './errors.ts';

/** The first handler of every route: records the route's pattern, such as `/api/:table`. */
export function named(route: string): RequestHandler {
  return (_request, response, next) => {
    response.locals['route'] = route;
    next();
  };
}

/**
 * The pattern of a request's route, for logs and metrics. Paths would not do: each id would become a label
 * of a metric.
 */
export function routeOf(response: Response): string {
  const route: unknown = response.locals['route'];
  return typeof route === 'string' ? route : 'unknown';
}

export const notFound: RequestHandler = (request) => {
  throw new PlankError('NOT_FOUND', `There is no ${shorten(request.path)} here`);
};

/** For addresses that serve only WebSockets. */
export const upgradeRequired: RequestHandler = (_request, response) => {
  response.set({ Upgrade: 'websocket', Connection: 'Upgrade' });
  throw new PlankError('UPGRADE_REQUIRED', 'This address is for WebSockets: connect with a WebSocket client');
};

/** The last handler of a route: answers 405. `allow` lists the route's methods: `GET, HEAD`. */
export function methodNotAllowed(allow: string): RequestHandler {
  return (request, response) => {
    response.set('Allow', allow);
    throw new PlankError('METHOD_NOT_ALLOWED', `${request.method} is not one of ${allow}`);
  };
}
