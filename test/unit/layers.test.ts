// The rooms of the sources, and which of them may know which. A wrong import fails with its file and specifier.

import { globSync } from 'node:fs';
import { join, posix } from 'node:path';
import { describe, expect, test } from 'vitest';
import {
  badStyle,
  circles,
  depth,
  type Floors,
  foreign,
  importsOf,
  readImports,
  roomOf,
  upward,
} from '../support/truth/rooms.ts';

/**
 * From the top floor to the bottom. A room may import rooms of later floors; rooms of one floor do
 * not know each other.
 */
const floors: Readonly<Record<string, Floors>> = {
  'services/gateway': [
    ['main.ts'],
    ['gateway.ts'],
    ['assemble.ts'],
    ['ops', 'balance'],
    ['clients'],
    ['http', 'relay'],
    ['channels'],
    ['rights'],
    ['filter'],
    ['catalog', 'access'],
    ['bounds'],
  ],
  shared: [['log', 'bus'], ['postgres', 'redis.ts'], ['process'], ['waiting.ts', 'wire.ts', 'exact-json.ts']],
  client: [
    ['plank-client.ts', 'react.ts', 'build.ts'],
    ['client.ts'],
    ['input.ts', 'change-iterator.ts'],
    ['api.ts'],
    ['socket.ts'],
    ['live'],
    ['state'],
    ['values'],
  ],
};
/** What each part may import of other parts. Those that are not named here (deploy, test, examples) may import all. */
const known: Readonly<Record<string, readonly string[]>> = {
  shared: [],
  client: ['shared'],
  'services/gateway': ['shared'],
  'services/listener': ['shared'],
};
const maxGatewayFloors = 11;
/** Files by which alone a room may be imported from outside. */
const doors: Readonly<Record<string, string>> = { 'services/gateway/filter': 'services/gateway/filter/row-filter.ts' };

const root = join(import.meta.dirname, '../..');
const sources = globSync('{services,shared,client,deploy,examples,test}/**/*.ts', { cwd: root })
  .map((file) => file.split(/[\\/]/).join('/'))
  .filter((file) => !file.includes('node_modules') && !file.startsWith('client/dist/'));
const imports = readImports(root, sources);
const ofPart = (part: string) => imports.filter(({ file }) => file.startsWith(`${part}/`));

describe.each(Object.keys(floors))('rooms of %s', (part) => {
  const own = ofPart(part);
  const room = (file: string) => roomOf(part, file);

  test('each room imports only rooms below it', () => {
    expect(own.length).toBeGreaterThan(20);
    expect(upward(part, floors[part]!, own)).toEqual([]);
  });

  test('the rooms have no circle', () => {
    expect(circles(own, room)).toEqual([]);
  });

  test('the files have no circle', () => {
    expect(circles(own, (file) => (room(file) === null ? null : file))).toEqual([]);
  });
});

test('shared imports no other part, and services and the SDK import shared alone', () => {
  expect(foreign(known, imports)).toEqual([]);
});

test('the gateway has no more floors than can be remembered', () => {
  const part = 'services/gateway';
  expect(depth(ofPart(part), (file) => roomOf(part, file))).toBeLessThanOrEqual(maxGatewayFloors);
});

test.each(Object.entries(doors))('%s is imported by its door alone', (room, door) => {
  const past = imports.filter(
    ({ file, target }) =>
      file.startsWith('services/') && !file.startsWith(`${room}/`) && target?.startsWith(`${room}/`) && target !== door,
  );
  expect(past.map(({ file, specifier }) => `${file} imports '${specifier}'`)).toEqual([]);
});

test('imports are relative within a part, and by alias across parts', () => {
  expect(badStyle(imports)).toEqual([]);
});

describe('the rules', () => {
  const rooms: Floors = [['top'], ['left', 'right'], ['bottom']];
  const tree = (files: Record<string, string>) =>
    Object.entries(files).flatMap(([file, text]) => importsOf(posix.join('services/gateway', file), text));
  const find = (files: Record<string, string>) => upward('services/gateway', rooms, tree(files));

  test('the rules find an import upward, even of a type', () => {
    const text = "import type {\n  A,\n} from '../top/a.ts';\nexport { b } from './b.ts';";
    expect(find({ 'bottom/a.ts': text })).toEqual([
      "services/gateway/bottom/a.ts imports '../top/a.ts': bottom must not know top",
    ]);
  });

  test('the rules find an import of a room on the same floor, even a dynamic one', () => {
    expect(find({ 'left/a.ts': "const a = await import('../right/a.ts');" })).toEqual([
      "services/gateway/left/a.ts imports '../right/a.ts': left must not know right",
    ]);
  });

  test('the rules find an import of a part that must not be known', () => {
    const text = "import { a } from '#listener/a.ts';\nimport { b } from '#shared/b.ts';";
    expect(foreign(known, importsOf('services/gateway/a.ts', text))).toEqual([
      "services/gateway/a.ts imports '#listener/a.ts': services/gateway must not know services/listener",
    ]);
  });

  test('the rules find a room that is in no list', () => {
    expect(find({ 'top/a.ts': "import '../attic/a.ts';" })).toEqual([
      "services/gateway/top/a.ts imports '../attic/a.ts': attic is not among the rooms of services/gateway",
    ]);
  });

  test('the rules find a circle of files, and how deep imports go', () => {
    const chain = { 'a.ts': "import './b.ts';", 'b.ts': "import './c.ts';" };
    expect(circles(tree(chain), (file) => file)).toEqual([]);
    expect(depth(tree(chain), (file) => file)).toBe(3);
    const circle = tree({ ...chain, 'c.ts': "import type { A } from './b.ts';" });
    expect(circles(circle, (file) => posix.basename(file))).toEqual(['b.ts → c.ts → b.ts']);
  });

  test.each([
    ['shared/a.ts', '#shared/b.ts', 'import files of shared by a relative path'],
    ['services/gateway/a.ts', '../../shared/b.ts', 'import files of shared by an alias'],
    ['client/a.ts', '../shared/waiting.ts', 'import files of shared by an alias'],
  ])('the rules find in %s the style of %s', (file, specifier, why) => {
    expect(badStyle(importsOf(file, `import '${specifier}';`))).toEqual([`${file} imports '${specifier}': ${why}`]);
  });
});
