/**
 * The SDK as a browser loads it: `import { createPlank } from '/plank.js'`. Plank has no build step, so the
 * types are stripped here, once at the start. Nothing is bundled. The paths keep the folders of the source,
 * so that the modules find each other.
 */
import { readFileSync } from 'node:fs';
import { stripTypeScriptTypes } from 'node:module';
import { posix } from 'node:path';

export interface SdkFile {
  type: string;
  body: string;
}

const root = new URL('../../../', import.meta.url);
/**
 * The modules that an application imports. `client/react.js` imports `react`, so the page needs an import
 * map that names `react`.
 */
const entries = ['client/plank-client', 'client/react'];
const relativeImport = /from\s+'(\.[^']*)\.js'/g;
const type = 'text/javascript; charset=utf-8';

/**
 * The files by path: `/plank.js`, `/client/….js`, `/shared/wire.js`. These are the entries and all modules
 * that they import, and nothing else. Imports are relative, so that a proxy can serve the files under a
 * prefix.
 */
export function sdkFiles(): Map<string, SdkFile> {
  const files = new Map([['/plank.js', { type, body: `export * from './client/plank-client.js';\n` }]]);
  const add = (name: string): void => {
    const path = `/${name}.js`;
    if (files.has(path)) return;
    const body = asJavaScript(readFileSync(new URL(`${name}.ts`, root), 'utf8'));
    files.set(path, { type, body });
    for (const [, module = ''] of body.matchAll(relativeImport)) add(posix.join(posix.dirname(name), module));
  };
  for (const name of entries) add(name);
  return files;
}

/** Replaces types by blanks, so that lines and columns are the same as in the source. */
function asJavaScript(source: string): string {
  const warn = process.emitWarning.bind(process);
  // suppresses the warning that stripping types is experimental: Node itself strips the types of these services
  process.emitWarning = () => {};
  try {
    return stripTypeScriptTypes(source).replace(/(from\s+'\.[^']*)\.ts'/g, "$1.js'");
  } finally {
    process.emitWarning = warn;
  }
}
