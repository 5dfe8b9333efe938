/**
 * The SDK as a browser loads it: `import { createPlank } from '/plank.js'`. Plank runs without a build step, so the types are stripped
 * here, once; nothing is bundled. Paths keep the folders of the source, so that the modules find each other.
 */
import { readFileSync } from 'node:fs';
import { stripTypeScriptTypes } from 'node:module';
import { posix } from 'node:path';

export interface SdkFile {
  type: string;
  body: string;
}

const root = new URL('../../../', import.meta.url);
/** What an application imports. `client/react.js` imports `react`, which the page's import map has to name. */
const entries = ['client/plank-client', 'client/react'];
const relativeImport = /from\s+'(\.[^']*)\.js'/g;
const type = 'text/javascript; charset=utf-8';

/**
 * By path: `/plank.js`, `/client/….js`, `/shared/wire.js`: the entries and all that they import, nothing else. Imports are relative, so that
 * a proxy may serve them under a prefix.
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

/** Types become blanks, so that lines and columns stay those of the source. */
function asJavaScript(source: string): string {
  const warn = process.emitWarning.bind(process);
  process.emitWarning = () => {}; // that stripping is experimental: Node runs these services by it
  try {
    return stripTypeScriptTypes(source).replace(/(from\s+'\.[^']*)\.ts'/g, "$1.js'");
  } finally {
    process.emitWarning = warn;
  }
}
