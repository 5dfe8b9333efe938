/** The console's files: the page, the SDK that it uses, and the charts, all under /console. They hold no secret and need no token. */
import { dirname } from 'node:path';
import { fileURLToPath } from 'node:url';
import { type RequestHandler, Router } from 'express';
import { methodNotAllowed, named } from '../http/routes.ts';
import { sdkFiles } from '../http/sdk.ts';

const consoleFolder = fileURLToPath(new URL('../../../console/', import.meta.url));
const chartsFolder = dirname(fileURLToPath(import.meta.resolve('uplot')));

/** What is served of the folder, by name: a file that lands in it is not public by itself. */
const files = [
  'dom.js',
  'feed.css',
  'icon.svg',
  'operator/ask.css',
  'operator/charts.js',
  'operator/channels.js',
  'operator/clients.js',
  'operator/explain.js',
  'operator/figures.css',
  'operator/log.js',
  'operator/main.js',
  'operator/nodes.js',
  'operator/operator.css',
  'operator/parts.js',
  'operator/session.js',
  'operator/status.css',
  'operator/status.js',
  'operator/tables.css',
  'operator/tail.js',
  'page.css',
];
const readOnly = methodNotAllowed('GET, HEAD');

export function opsPages(): Router {
  const router = Router();
  const serve = (path: string, send: RequestHandler) =>
    router
      .route(path)
      .all(named(path))
      .get((request, response, next) => {
        // always asked for again, mostly answered by 304: the modules of two versions do not fit together
        response.set('Cache-Control', 'no-cache');
        send(request, response, next);
      })
      .all(readOnly);
  const file = (path: string, name: string, root: string) =>
    serve(path, (_request, response) => response.sendFile(name, { root, cacheControl: false }));

  serve('/', (_request, response) => response.redirect('console'));
  // what it names is beside it, not below it
  serve('/console', (request, response) => {
    if (request.path.endsWith('/')) return response.redirect('../console');
    response.sendFile('operator/index.html', { root: consoleFolder, cacheControl: false });
  });
  for (const name of files) file(`/console/${name}`, name, consoleFolder);
  file('/console/uplot.js', 'uPlot.esm.js', chartsFolder);
  file('/console/uplot.css', 'uPlot.min.css', chartsFolder);
  for (const [path, { type, body }] of sdkFiles())
    serve(`/console${path}`, (_request, response) => void response.set('Content-Type', type).send(body));
  return router;
}
