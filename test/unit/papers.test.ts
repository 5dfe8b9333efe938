// The papers point at things that exist: every link leads to a file and a heading, every file that CONTRIBUTING.md sends to is there,
// ARCHITECTURE.md names functions that exist and tests by their titles, and code cites sections of PROTOCOL.md that it has.

import { existsSync, readdirSync, readFileSync } from 'node:fs';
import { dirname, join } from 'node:path';
import { describe, expect, test } from 'vitest';

const root = join(import.meta.dirname, '../..');
const read = (path: string) => readFileSync(join(root, path), 'utf8');
const filesOf = (folder: string, ending: string) =>
  readdirSync(join(root, folder), { recursive: folder !== '.', encoding: 'utf8' })
    .filter((name) => name.endsWith(ending) && !name.includes('node_modules'))
    .map((name) => join(folder, name));

const papers = ['.', 'docs', 'client', 'examples'].flatMap((folder) => filesOf(folder, '.md'));

/** As GitHub makes anchors of headings. */
const anchorsOf = (markdown: string) =>
  [...markdown.matchAll(/^#+ (.+)$/gm)].map(([, heading]) =>
    heading!
      .toLowerCase()
      .replaceAll(/[^\p{L}\p{N} _-]/gu, '')
      .replaceAll(' ', '-'),
  );

describe('links', () => {
  test.each(papers)('the links of %s lead to files and headings', (paper) => {
    const links = [...read(paper).matchAll(/\]\((?!\w+:)([^)\s]*)\)/g)].map(([, link]) => link!);
    const broken = links.filter((link) => {
      const [path, anchor] = link.split('#');
      const target = path ? join(dirname(paper), path) : paper;
      if (!existsSync(join(root, target))) return true;
      return anchor !== undefined && target.endsWith('.md') && !anchorsOf(read(target)).includes(anchor);
    });
    expect(broken).toEqual([]);
  });
});

test('files that CONTRIBUTING.md sends to are there', () => {
  const [, table] = /^## Where is it\?$(.*?)^## /ms.exec(read('CONTRIBUTING.md'))!;
  const paths = [...table!.matchAll(/`([\w./-]+\.(?:ts|sql|yml|md|example))`/g)].map(([, path]) => path!);
  expect(paths.length).toBeGreaterThan(40);
  const missing = paths.filter((path) => !['', 'services/gateway'].some((room) => existsSync(join(root, room, path))));
  expect(missing).toEqual([]);
});

describe('invariants', () => {
  const rows = [...read('ARCHITECTURE.md').matchAll(/^\| \*\*(I\d+)\*\* \| .* \| (.*) \|$/gm)];

  test('the invariants are I1 to I10', () => {
    expect(rows.map(([, name]) => name)).toEqual(Array.from({ length: 10 }, (_, i) => `I${i + 1}`));
  });

  test.each(rows.map(([, name, tests]) => [name!, tests!]))('the invariant %s names tests that exist', (_, tests) => {
    const cited = [...tests.matchAll(/\]\((test\/[^)]+)\): ((?:"[^"]+"(?:, )?)+)/g)];
    expect(cited.length).toBe(tests.match(/\]\(/g)!.length);
    const missing = cited.flatMap(([, path, titles]) => {
      const source = read(path!);
      const wanted = [...titles!.matchAll(/"([^"]+)"/g)].map(([, title]) => title!);
      return wanted.filter((title) => !source.includes(`'${title}'`)).map((title) => `${path}: ${title}`);
    });
    expect(missing).toEqual([]);
  });
});

test('functions and classes that ARCHITECTURE.md names are there', () => {
  const sources = ['services', 'shared', 'client'].flatMap((folder) => filesOf(folder, '.ts')).map(read);
  const sql = filesOf('shared/sql', '.sql').map(read).join('\n');
  const isThere = (name: string) => {
    if (name.startsWith('plank.')) return new RegExp(`create (function|table|view) ${name}\\b`).test(sql);
    const [owner, method] = /^([A-Z]\w+)\.(\w+)$/.exec(name)?.slice(1) ?? [];
    if (owner === undefined) return sources.some((source) => source.includes(`${name}(`));
    return sources.some((source) => source.includes(`class ${owner} `) && source.includes(`${method}(`));
  };
  const named = [...read('ARCHITECTURE.md').matchAll(/`(plank\.[a-z_]+|[A-Z]\w+\.[a-z]\w+|#[a-z]\w+)`/g)];
  expect(named.length).toBeGreaterThan(15);
  expect(named.map(([, name]) => name!).filter((name) => !isThere(name))).toEqual([]);
});

test('sections of PROTOCOL.md that code cites are there', () => {
  const sources = ['services', 'shared', 'client', 'test/support'].flatMap((folder) => filesOf(folder, '.ts'));
  const cited = sources.flatMap((path) =>
    [...read(path).matchAll(/PROTOCOL\.md, "([^"]+)"/g)].map(([, name]) => name!.replaceAll(/\s+\*?\s*/g, ' ')),
  );
  expect(cited.length).toBeGreaterThan(0);
  const headings = [...read('PROTOCOL.md').matchAll(/^#+ (.+)$/gm)].map(([, heading]) => heading);
  for (const name of cited) expect(headings).toContain(name);
});
