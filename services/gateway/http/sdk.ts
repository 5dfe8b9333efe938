/**
 * The SDK as a browser loads it: `import { createPlank } from '/plank.js'`. Plank runs without a build step, so the types are stripped
 * here, once; nothing is bundled. Paths keep the folders of the source, so that the modules find each other.
 */
import { readFileSync } from 'node:fs';
import { stripTypeScriptTypes } from 'node:module';

export interface SdkFile {
  type: string;
  body: string;
}

const root = new URL('../../../', import.meta.url);
/** What is served, by name. `client/react.js` imports `react`, which the page's import map has to name. */
const modules = [
  'client/api',
  'client/canonical',
  'client/change-iterator',
  'client/client',
  'client/clock',
  'client/coming-back',
  'client/connection-model',
  'client/connection-state',
  'client/exact',
  'client/freshness',
  'client/input',
  'client/live-handle',
  'client/live-query',
  'client/live-rows',
  'client/live-source',
  'client/plank-client',
  'client/react',
  'client/shared-stream',
  'client/socket',
  'client/truncated',
  'shared/wire',
];
const type = 'text/javascript; charset=utf-8';

/** By path: `/plank.js`, `/client/….js`, `/shared/wire.js`. Relative imports only, so that a proxy may put them under a prefix. */
export function sdkFiles(): Map<string, SdkFile> {
  const files = modules.map((name): [string, SdkFile] => {
    const source = readFileSync(new URL(`${name}.ts`, root), 'utf8');
    return [`/${name}.js`, { type, body: asJavaScript(source) }];
  });
  return new Map([['/plank.js', { type, body: `export * from './client/plank-client.js';\n` }], ...files]);
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
