// The SDK as a package: Node imports what `npm pack ./client` makes, and TypeScript reads its types, with nothing beside it.

import { execFile } from 'node:child_process';
import { mkdir, mkdtemp, readdir, rm, symlink, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { promisify } from 'node:util';
import { afterAll, beforeAll, expect, test } from 'vitest';

const run = promisify(execFile);
const root = join(import.meta.dirname, '../..');
let folder: string;

beforeAll(async () => {
  folder = await mkdtemp(join(tmpdir(), 'plank-package-'));
  await run('npm', ['run', 'build:client'], { cwd: root });
  await run('npm', ['pack', './client', '--pack-destination', folder], { cwd: root });
  const [tarball] = (await readdir(folder)).filter((name) => name.endsWith('.tgz'));
  const installed = join(folder, 'node_modules/plank-client');
  await mkdir(installed, { recursive: true });
  await run('tar', ['-xzf', join(folder, tarball!), '-C', installed, '--strip-components=1']);
  // React, which the hook needs, and its types
  for (const name of ['react', '@types'])
    await symlink(join(root, 'node_modules', name), join(folder, 'node_modules', name));
});

afterAll(() => rm(folder, { recursive: true, force: true }));

test('Node imports the package', async () => {
  const script = `import * as sdk from 'plank-client'; import * as hook from 'plank-client/react';
    const plank = sdk.createPlank({ url: 'ws://localhost:1/ws' });
    console.log(typeof plank.table('items').live, new sdk.PlankError('X', 'y').code, Object.keys({ ...sdk, ...hook }).join()); plank.close();`;
  await writeFile(join(folder, 'script.mjs'), script);
  const { stdout } = await run(process.execPath, [join(folder, 'script.mjs')], { cwd: folder });
  expect(stdout).toBe('function X PlankError,createPlank,isTruncated,useLive\n');
});

test('the package has types that TypeScript checks', async () => {
  const tsc = [join(root, 'node_modules/typescript/bin/tsc'), '--noEmit', '--strict', '--skipLibCheck', 'false'];
  const options = ['--module', 'nodenext', '--target', 'es2022', '--types', ''];
  const check = (file: string) =>
    run(process.execPath, [...tsc, ...options, join(folder, file)], { cwd: folder }).then(
      () => '',
      ({ stdout }: { stdout: string }) => stdout,
    );
  const head = `import { createPlank, type Change } from 'plank-client';
    interface Item { id: number; name: string }
    const items = createPlank({ url: 'ws://localhost/ws' }).table<Item>('items');`;
  await writeFile(
    join(folder, 'right.mts'),
    `${head}
    items.live({ id: { gt: 3 } }, (rows) => { for (const { name } of rows.values()) name.trim(); }).close();
    items.subscribe({ snapshot: true }, { onChange: ({ data }: Change<Item>) => data?.id.toFixed() });`,
  );
  await writeFile(
    join(folder, 'wrong.mts'),
    `${head}\n    items.live({}, (rows) => { for (const row of rows.values()) row.nane; });`,
  );
  expect(await check('right.mts')).toBe('');
  expect(await check('wrong.mts')).toContain("'nane' does not exist on type 'Item'");
});
