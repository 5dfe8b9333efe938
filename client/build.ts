/**
 * `npm run build:client`: compiles the SDK to JavaScript and types in client/dist, for `npm pack ./client`. The files
 * are not bundled.
 */
import { execFileSync } from 'node:child_process';
import { rmSync } from 'node:fs';
import { fileURLToPath } from 'node:url';

const inRoot = (path: string) => fileURLToPath(new URL(`../${path}`, import.meta.url));

rmSync(inRoot('client/dist'), { recursive: true, force: true });
execFileSync(process.execPath, [inRoot('node_modules/typescript/bin/tsc'), '-p', inRoot('client')], {
  stdio: 'inherit',
});
