// Runs programs of Debian or Ubuntu packages without installing them. apt downloads and verifies the packages, with the
// dependencies that this system lacks. Then the packages are unpacked into a cache folder. What must stay true:
// - the system does not change: no file outside the cache folder is written, and root is not needed;
// - a folder in the cache is complete: it is made under another name and then renamed. So several callers may make it
//   at the same time.

import { execFile } from 'node:child_process';
import { access, chmod, mkdir, mkdtemp, readdir, readFile, rename, rm, writeFile } from 'node:fs/promises';
import { homedir, tmpdir } from 'node:os';
import { dirname, join } from 'node:path';
import { promisify } from 'node:util';
import { findProgram } from './process.ts';

const run = promisify(execFile);
const fetchDeadlineMs = 300_000;

export interface PackageProgram {
  /** Packages that are unpacked even if they are installed. Their missing dependencies are unpacked too. */
  packages: string[];
  /**
   * The path of the program in the packages: `usr/sbin/nginx`. A part of the path may be `*`, which means the first
   * name there.
   */
  program: string;
  /**
   * More programs of the same folder. Each program gets a script of its own name beside the script of the first
   * program.
   */
  beside?: string[];
}

const underWay = new Map<string, Promise<string>>();

/**
 * Returns the path of a script that runs the program with its libraries. The script execs the program, so both have one
 * process id. On other systems than Debian and Ubuntu, or if the packages cannot be downloaded, throws.
 */
export function packageProgram(wanted: PackageProgram): Promise<string> {
  let found = underWay.get(wanted.program);
  if (found === undefined) {
    found = unpack(wanted).finally(() => underWay.delete(wanted.program));
    underWay.set(wanted.program, found);
  }
  return found;
}

async function unpack(wanted: PackageProgram): Promise<string> {
  if (findProgram('apt-get') === undefined || findProgram('dpkg-deb') === undefined) {
    throw new Error('this system has no apt-get');
  }
  const cache = await cacheFolder();
  const place = join(cache, `${wanted.packages[0]}-${await systemName()}`);
  const script = join(place, 'run');
  if (await exists(script)) return script;

  console.error(
    `downloading the Debian package ${wanted.packages[0]} (unpacked below ${cache}; nothing is installed) …`,
  );
  const making = await mkdtemp(join(cache, '.making-'));
  try {
    await chmod(making, 0o755);
    const archives = join(making, 'apt', 'archives');
    await download(wanted.packages, join(making, 'apt'), archives);
    const root = join(making, 'root');
    for (const file of await readdir(archives)) {
      if (file.endsWith('.deb')) await run('dpkg-deb', ['-x', join(archives, file), root]);
    }
    await rm(join(making, 'apt'), { recursive: true, force: true });
    const program = await findIn(root, wanted.program);
    await writeScript(making, 'run', program);
    for (const name of wanted.beside ?? []) await writeScript(making, name, join(dirname(program), name));
    await checkLibraries(making, program);
    await rename(making, place).catch(async (error) => {
      if (!(await exists(script))) throw error;
    });
    return script;
  } finally {
    await rm(making, { recursive: true, force: true });
  }
}

/**
 * Downloads packages by the package lists of the system. If these lists are missing or outdated, first downloads lists
 * into `folder`.
 */
async function download(packages: string[], folder: string, archives: string): Promise<void> {
  const lists = join(folder, 'lists');
  await mkdir(join(archives, 'partial'), { recursive: true });
  await mkdir(join(lists, 'partial'), { recursive: true });
  const common = [
    '-qq',
    '-o',
    `Dir::Cache=${folder}`,
    '-o',
    'Debug::NoLocking=true',
    '-o',
    'APT::Update::Post-Invoke::=',
  ];
  // As root, apt downloads as a user of its own, who cannot write into this folder.
  if (process.getuid?.() === 0) common.push('-o', 'APT::Sandbox::User=root');
  const own = ['-o', `Dir::State::lists=${lists}`];
  const install = ['install', '--yes', '--download-only', '--reinstall', '--no-install-recommends', ...packages];
  try {
    await apt([...common, ...install]);
  } catch {
    await apt([...common, ...own, 'update']);
    await apt([...common, ...own, ...install]);
  }
}

async function apt(args: string[]): Promise<void> {
  const env = { ...process.env, DEBIAN_FRONTEND: 'noninteractive', LC_ALL: 'C' };
  try {
    await run('apt-get', args, { env, timeout: fetchDeadlineMs, maxBuffer: 16 * 1024 * 1024 });
  } catch (error) {
    const lines = (error as { stderr?: string }).stderr?.trim().split('\n') ?? [];
    const why = lines.filter((line) => line.startsWith('E:')).join(' ') || String(error);
    throw new Error(`apt-get: ${why}`, { cause: error });
  }
}

/** The path below `root` that matches a pattern. */
async function findIn(root: string, pattern: string): Promise<string> {
  let path = '';
  for (const part of pattern.split('/')) path = join(path, part === '*' ? (await readdir(join(root, path)))[0]! : part);
  return path;
}

async function writeScript(folder: string, name: string, program: string): Promise<void> {
  const libraries = (await libraryFolders(join(folder, 'root'))).map((path) => `$root/${path}`);
  const lines = [
    '#!/bin/sh',
    'root=$(dirname "$0")/root',
    `export LD_LIBRARY_PATH="${libraries.join(':')}\${LD_LIBRARY_PATH:+:$LD_LIBRARY_PATH}"`,
    // fontconfig looks for this file in /etc, and not in the unpacked package
    'if [ ! -e /etc/fonts/fonts.conf ] && [ -e "$root/etc/fonts/fonts.conf" ]; then export FONTCONFIG_FILE="$root/etc/fonts/fonts.conf"; fi',
    // A browser needs at least one font. If the system has no fonts, the browser gets the fonts of the packages.
    'if [ ! -d /usr/share/fonts ] && [ -d "$root/usr/share/fonts" ]; then',
    '  printf "<fontconfig><dir>%s/usr/share/fonts</dir><cachedir prefix=\\"xdg\\">fontconfig</cachedir></fontconfig>\\n" "$root" > "$root/fonts.conf"',
    '  export FONTCONFIG_FILE="$root/fonts.conf"',
    'fi',
    // apt downloads no program that the system already has. Then the script runs the system's program.
    `program="$root/${program}"; [ -e "$program" ] || program="/${program}"`,
    'exec ${PLANK_RUN:-} "$program" "$@"',
  ];
  await writeFile(join(folder, name), `${lines.join('\n')}\n`, { mode: 0o755 });
}

/**
 * The folders with libraries, shortest path first, because some packages have a folder of their own below the usual
 * one.
 */
async function libraryFolders(root: string): Promise<string[]> {
  const files = await readdir(root, { recursive: true });
  const folders = files.filter((file) => /^(usr\/)?lib\/.*\.so(\.\d+)*$/.test(file)).map((file) => dirname(file));
  return [...new Set(folders)].sort((a, b) => a.length - b.length || a.localeCompare(b));
}

async function checkLibraries(folder: string, program: string): Promise<void> {
  // runs `ldd` on the program, with the script's library path
  const { stdout } = await run(join(folder, 'run'), [], { env: { ...process.env, PLANK_RUN: 'ldd' } }).catch(
    (cause) => {
      throw new Error(`the package has no working ${program}`, { cause });
    },
  );
  const missing = [...stdout.matchAll(/(\S+) => not found/g)].map(([, library]) => library);
  if (missing.length > 0) throw new Error(`${program} of the package lacks the libraries ${missing.join(', ')}`);
}

let cacheKnown: Promise<string> | undefined;

/**
 * The folder for the cache: in the project if that is writable, else the user's cache folder, else in the folder for
 * temporary files.
 */
export function cacheFolder(): Promise<string> {
  cacheKnown ??= (async () => {
    const project = join(import.meta.dirname, '../../node_modules/.cache/plank');
    const user = join(process.env.XDG_CACHE_HOME ?? join(homedir(), '.cache'), 'plank');
    const last = join(tmpdir(), `plank-cache-${process.getuid?.() ?? 0}`);
    for (const folder of [project, user]) {
      try {
        await mkdir(folder, { recursive: true });
        await rm(await mkdtemp(join(folder, '.try-')), { recursive: true });
        return folder;
      } catch {
        // This folder is not writable, so the next folder is tried.
      }
    }
    await mkdir(last, { recursive: true, mode: 0o700 });
    return last;
  })();
  return cacheKnown;
}

/**
 * The name of the release, such as `debian-12-x64`. Libraries of one release do not run on another, so each release has
 * a folder of its own.
 */
async function systemName(): Promise<string> {
  const release = await readFile('/etc/os-release', 'utf8').catch(() => '');
  const field = (name: string) => new RegExp(`^${name}="?([^"\n]*)`, 'm').exec(release)?.[1] ?? 'unknown';
  return `${field('ID')}-${field('VERSION_ID')}-${process.arch}`;
}

async function exists(path: string): Promise<boolean> {
  return access(path).then(
    () => true,
    () => false,
  );
}
