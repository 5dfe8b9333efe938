// Owns the rules of imports: reads the imports of sources, and names those that break a rule. Type
// imports count as any other.

import { readFileSync } from 'node:fs';
import { join, posix } from 'node:path';

export interface Import {
  file: string;
  specifier: string;
  /** the imported file; null: a package, or a module of Node's */
  target: string | null;
}

/**
 * Rooms from the top floor to the bottom. A room is a folder or a file; it may import rooms of
 * later floors, and itself.
 */
export type Floors = readonly (readonly string[])[];

/** What one alias names: these are imported relatively within, and by the alias from elsewhere. */
const parts: Readonly<Record<string, string>> = {
  '#gateway': 'services/gateway',
  '#listener': 'services/listener',
  '#shared': 'shared',
  '#client': 'client',
  '#deploy': 'deploy',
};
/** parts that nobody imports */
const others = ['test', 'examples'];

const statement = /^\s*(?:import|export)\s(?:[^;'"]*?\sfrom\s)?'([^']+)'/gm;
const dynamic = /\bimport\('([^']+)'\)/g;

/** `text`: the source of a file at that path, from the root of the repository. */
export function importsOf(file: string, text: string): Import[] {
  const specifiers = [statement, dynamic].flatMap((pattern) => [...text.matchAll(pattern)].map(([, name]) => name!));
  return specifiers.map((specifier) => ({ file, specifier, target: targetOf(file, specifier) }));
}

export function readImports(root: string, files: readonly string[]): Import[] {
  return files.flatMap((file) => importsOf(file, readFileSync(join(root, file), 'utf8')));
}

function targetOf(file: string, specifier: string): string | null {
  if (specifier.startsWith('.')) return posix.join(posix.dirname(file), specifier);
  const [alias = '', ...path] = specifier.split('/');
  return parts[alias] === undefined ? null : posix.join(parts[alias], ...path);
}

const say = ({ file, specifier }: Import, why: string) => `${file} imports '${specifier}': ${why}`;

/** Imports of a part's own files from a room on the same floor or above, and files that are in no room. */
export function upward(part: string, floors: Floors, imports: readonly Import[]): string[] {
  const floorOf = (room: string) => floors.findIndex((rooms) => rooms.includes(room));
  return imports.flatMap((one) => {
    const from = roomOf(part, one.file);
    const to = one.target === null ? null : roomOf(part, one.target);
    if (from === null || to === null || from === to) return [];
    const unknown = [from, to].find((room) => floorOf(room) < 0);
    if (unknown !== undefined) return [say(one, `${unknown} is not among the rooms of ${part}`)];
    return floorOf(from) < floorOf(to) ? [] : [say(one, `${from} must not know ${to}`)];
  });
}

/** The folder of a file within a part, or the file itself where it is in none; null: it is of another part. */
export function roomOf(part: string, file: string): string | null {
  return file.startsWith(`${part}/`) ? file.slice(part.length + 1).split('/')[0]! : null;
}

/** Each circle once, as "a → b → a". `nodeOf`: what of a file is looked at, null where nothing is. */
export function circles(imports: readonly Import[], nodeOf: (file: string) => string | null): string[] {
  const edges = edgesOf(imports, nodeOf);
  const found: string[] = [];
  const done = new Set<string>();
  const walk = (node: string, path: readonly string[]) => {
    const at = path.indexOf(node);
    if (at >= 0) found.push([...path.slice(at), node].join(' → '));
    if (at >= 0 || done.has(node)) return;
    for (const next of edges.get(node) ?? []) walk(next, [...path, node]);
    done.add(node);
  };
  for (const node of edges.keys()) walk(node, []);
  return found;
}

/** The number of nodes on the longest chain of imports; there must be no circle. */
export function depth(imports: readonly Import[], nodeOf: (file: string) => string | null): number {
  const edges = edgesOf(imports, nodeOf);
  const known = new Map<string, number>();
  const below = (node: string): number => {
    const depth = known.get(node) ?? 1 + Math.max(0, ...[...(edges.get(node) ?? [])].map(below));
    known.set(node, depth);
    return depth;
  };
  return Math.max(0, ...[...edges.keys()].map(below));
}

function edgesOf(imports: readonly Import[], nodeOf: (file: string) => string | null): Map<string, Set<string>> {
  const edges = new Map<string, Set<string>>();
  for (const { file, target } of imports) {
    const from = nodeOf(file);
    const to = target === null ? null : nodeOf(target);
    if (from === null || to === null || from === to) continue;
    edges.set(from, (edges.get(from) ?? new Set()).add(to));
  }
  return edges;
}

/** Imports of a part that the importing part must not know. A part that is not in `known` may know all. */
export function foreign(known: Readonly<Record<string, readonly string[]>>, imports: readonly Import[]): string[] {
  return imports.flatMap((one) => {
    if (one.target === null) return [];
    const [from, to] = [partOf(one.file), partOf(one.target)];
    if (from === to || known[from]?.includes(to) !== false) return [];
    return [say(one, `${from} must not know ${to}`)];
  });
}

/** Imports of another part by a relative path, or of the own part by its alias. */
export function badStyle(imports: readonly Import[]): string[] {
  return imports.flatMap((one) => {
    if (one.target === null) return [];
    const [from, to] = [partOf(one.file), partOf(one.target)];
    const isRelative = one.specifier.startsWith('.');
    if (from === to) return isRelative ? [] : [say(one, `import files of ${from} by a relative path`)];
    // the SDK's files are served to browsers as they are, which know no aliases
    if (!isRelative || (from === 'client' && one.target === 'shared/wire.ts')) return [];
    return [say(one, `import files of ${to} by an alias`)];
  });
}

function partOf(file: string): string {
  return [...Object.values(parts), ...others].find((part) => file.startsWith(`${part}/`)) ?? '';
}
