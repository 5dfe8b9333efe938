/**
 * Files for browsers: the folders of pages/ and the SDK, each file with a route of its own, for GET and
 * HEAD. The folders are read once. Invariant: a file is public only if its name is plain and its extension
 * is listed here. So if somebody leaves a key, a dump or a dotfile in a folder, it is not served.
 */
import { readdirSync } from 'node:fs';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { type RequestHandler, Router } from 'express';
import { methodNotAllowed, named } from './routes.ts';
import { sdkFiles } from './sdk.ts';

const pagesFolder = fileURLToPath(new URL('../../../pages/', import.meta.url));
const publicName = /^[a-z][a-z-]*\.(css|js|svg)$/;
const readOnly = methodNotAllowed('GET, HEAD');

/** The handler of each file, by the path of its URL. */
export type Files = ReadonlyMap<string, RequestHandler>;

/** The names of the public files in a folder. */
export function publicNames(folder: string): string[] {
  const entries = readdirSync(folder, { withFileTypes: true });
  return entries.filter((entry) => entry.isFile() && publicName.test(entry.name)).map(({ name }) => name);
}

export function sendFile(name: string, root = pagesFolder): RequestHandler {
  return (_request, response) => response.sendFile(name, { root, cacheControl: false });
}

/** The public files of these folders of pages/, each at a path like `/common/page.css`. */
export function pageFiles(folders: readonly string[]): Files {
  const names = folders.flatMap((folder) => publicNames(join(pagesFolder, folder)).map((name) => `${folder}/${name}`));
  return new Map(names.map((name) => [`/${name}`, sendFile(name)]));
}

/** `/plank.js` and the modules that it imports. */
export function sdk(): Files {
  return new Map(
    [...sdkFiles()].map(([path, { type, body }]): [string, RequestHandler] => [
      path,
      (_request, response) => void response.set('Content-Type', type).send(body),
    ]),
  );
}

/** Makes a route for each file, below `prefix`. */
export function fileRoutes(files: Files, { prefix = '', headers = {} } = {}): Router {
  const router = Router();
  for (const [path, send] of files) {
    router
      .route(prefix + path)
      .all(named(prefix + path))
      .get((request, response, next) => {
        // no-cache: browsers ask for a file at each use, and mostly get a 304. Without this header, a
        // page could combine modules of two versions, which do not fit together.
        response.set({ ...headers, 'Cache-Control': 'no-cache' });
        send(request, response, next);
      })
      .all(readOnly);
  }
  return router;
}
