/**
 * The files of the console, below /console: the page, the SDK, and the library for charts. The files
 * contain no secret, so they need no token.
 */
import { dirname } from 'node:path';
import { fileURLToPath } from 'node:url';
import { type RequestHandler, Router } from 'express';
import { fileRoutes, pageFiles, sdk, sendFile } from '../http/pages.ts';

const chartsFolder = dirname(fileURLToPath(import.meta.resolve('uplot')));
const page = sendFile('operators/index.html');

export function opsPages(): Router {
  const entries = new Map<string, RequestHandler>([
    ['/', (_request, response) => response.redirect('console')],
    // the page names its files as `console/…`, relative to its own address. If this address ended with a
    // slash, browsers would look for the files below /console/console/.
    [
      '/console',
      (request, response, next) =>
        request.path.endsWith('/') ? response.redirect('../console') : page(request, response, next),
    ],
  ]);
  const files = new Map([
    ...pageFiles(['operators', 'common']),
    ['/uplot.js', sendFile('uPlot.esm.js', chartsFolder)],
    ['/uplot.css', sendFile('uPlot.min.css', chartsFolder)],
    ...sdk(),
  ]);
  return Router().use(fileRoutes(entries), fileRoutes(files, { prefix: '/console' }));
}
