/**
 * Handlers that routes share: the name of a route for logs and metrics, and the answers to requests
 * that no route takes.
 */
import type { RequestHandler, Response } from 'express';
import { PlankError, shorten } from './errors.ts';

/** The first handler of every route: names its pattern. */
export function named(route: string): RequestHandler {
  return (_request, response, next) => {
    response.locals['route'] = route;
    next();
  };
}

/** The pattern of a request's route, for logs and metrics: paths would make a label of every id. */
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

/** The last handler of a route. */
export function methodNotAllowed(allow: string): RequestHandler {
  return (request, response) => {
    response.set('Allow', allow);
    throw new PlankError('METHOD_NOT_ALLOWED', `${request.method} is not one of ${allow}`);
  };
}
