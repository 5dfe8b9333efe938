// Owns programs that come out of a Debian or Ubuntu package without being installed: apt fetches and verifies the package
// and what it needs that this system lacks, and they are unpacked into a cache folder. What must stay true:
// - the system is not changed: no file outside the cache folder is written, and no root is needed;
// - a folder in the cache is complete: it is made beside its place and renamed into it, so that callers may race.

import { execFile } from 'node:child_process';
import { access, chmod, mkdir, mkdtemp, readdir, readFile, rename, rm, writeFile } from 'node:fs/promises';
import { homedir, tmpdir } from 'node:os';
import { dirname, join } from 'node:path';
import { promisify } from 'node:util';
import { findProgram } from './process.ts';

const run = promisify(execFile);
const fetchDeadlineMs = 300_000;

export interface PackageProgram {
  /** Packages to unpack even where the system says that they are installed. What they depend on comes by itself. */
  packages: string[];
  /** The path of the program in the packages: `usr/sbin/nginx`. A part of it may be `*`, for the first name there. */
  program: string;
  /** Further programs of the same folder, which get scripts of their own beside the first one's, by their names. */
  beside?: string[];
}

const underWay = new Map<string, Promise<string>>();

/**
 * The path of a script that runs the program with its libraries; it execs, so that its process is the program's. Throws
 * when this is no Debian or Ubuntu, or the packages cannot be had.
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

  console.error(`fetching ${wanted.packages[0]} (a Debian package, unpacked below ${cache}; nothing is installed) …`);
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

/** Fetches by the package lists that the system has; where they are missing or outdated, by fresh ones of our own. */
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
  // apt would fetch as its own user, who cannot write into a folder of ours.
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

/** The path below `root` that a pattern stands for. */
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
    // The one file that libraries look up outside of their package, where the system has none of its own.
    'if [ ! -e /etc/fonts/fonts.conf ] && [ -e "$root/etc/fonts/fonts.conf" ]; then export FONTCONFIG_FILE="$root/etc/fonts/fonts.conf"; fi',
    // A browser without a single font cannot draw; where the system has none, those of the packages do.
    'if [ ! -d /usr/share/fonts ] && [ -d "$root/usr/share/fonts" ]; then',
    '  printf "<fontconfig><dir>%s/usr/share/fonts</dir><cachedir prefix=\\"xdg\\">fontconfig</cachedir></fontconfig>\\n" "$root" > "$root/fonts.conf"',
    '  export FONTCONFIG_FILE="$root/fonts.conf"',
    'fi',
    // what the system has was not fetched
    `program="$root/${program}"; [ -e "$program" ] || program="/${program}"`,
    'exec ${PLANK_RUN:-} "$program" "$@"',
  ];
  await writeFile(join(folder, name), `${lines.join('\n')}\n`, { mode: 0o755 });
}

/** The folders that hold libraries, shortest first: some packages keep theirs in one of their own below the usual. */
async function libraryFolders(root: string): Promise<string[]> {
  const files = await readdir(root, { recursive: true });
  const folders = files.filter((file) => /^(usr\/)?lib\/.*\.so(\.\d+)*$/.test(file)).map((file) => dirname(file));
  return [...new Set(folders)].sort((a, b) => a.length - b.length || a.localeCompare(b));
}

async function checkLibraries(folder: string, program: string): Promise<void> {
  // `ldd` in the place of the program, with the script's library path.
  const { stdout } = await run(join(folder, 'run'), [], { env: { ...process.env, PLANK_RUN: 'ldd' } }).catch(
    (cause) => {
      throw new Error(`the package has no working ${program}`, { cause });
    },
  );
  const missing = [...stdout.matchAll(/(\S+) => not found/g)].map(([, library]) => library);
  if (missing.length > 0) throw new Error(`${program} of the package lacks the libraries ${missing.join(', ')}`);
}

let cacheKnown: Promise<string> | undefined;

/** In the project where it can be written, else in the user's own cache, else among the temporary files. */
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
        // Not writable for us.
      }
    }
    await mkdir(last, { recursive: true, mode: 0o700 });
    return last;
  })();
  return cacheKnown;
}

/** Libraries of one release do not fit another: `debian-12-x64`. */
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
