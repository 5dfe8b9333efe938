// Owns a PostgreSQL of this system's distribution, on a data folder of the test's own. It has LLVM, pg_dump and pg_restore,
// which the packages of npm lack. What must stay true: where none can be found or fetched, tests fail and say what to install;
// they are never skipped.

import { execFile } from 'node:child_process';
import { access, chown, mkdir, mkdtemp, readdir, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { dirname, join } from 'node:path';
import { promisify } from 'node:util';
import { packageProgram } from '#deploy/local/packages.ts';
import { type Child, onFreePort, startChild } from '#deploy/local/process.ts';
import { type RunAs, runAs } from '#deploy/local/run-as.ts';
import { admin } from './admin.ts';

const run = promisify(execFile);
const folder = '/usr/lib/postgresql';
const programs = ['initdb', 'postgres', 'pg_dump', 'pg_restore'] as const;
type Program = (typeof programs)[number];

/** The path of each program. */
type Programs = Record<Program, string>;

/** The programs of the newest complete version that is installed, else of the distribution's package, unpacked into the cache. */
async function findPrograms(): Promise<Programs> {
  const versions = (await readdir(folder).catch(() => [])).map(Number).filter((version) => version >= 14);
  for (const version of versions.sort((a, b) => b - a)) {
    const place = join(folder, String(version));
    const needed = ['lib/llvmjit.so', ...programs.map((name) => `bin/${name}`)];
    const found = await Promise.all(needed.map((file) => exists(join(place, file))));
    if (found.every(Boolean)) return programsOf((name) => join(place, 'bin', name));
  }
  try {
    const script = await packageProgram({
      packages: ['postgresql'],
      program: 'usr/lib/postgresql/*/bin/postgres',
      beside: [...programs],
    });
    return programsOf((name) => join(dirname(script), name));
  } catch (cause) {
    throw new Error(
      `this test needs PostgreSQL as Debian or Ubuntu builds it, with LLVM (${(cause as Error).message}): apt-get install postgresql`,
      { cause },
    );
  }
}

function programsOf(path: (name: Program) => string): Programs {
  return Object.fromEntries(programs.map((name) => [name, path(name)])) as Programs;
}

function exists(path: string): Promise<boolean> {
  return access(path).then(
    () => true,
    () => false,
  );
}

export class DistributionPostgres {
  readonly #programs: Programs;
  readonly #dataDir: string;
  readonly #user: RunAs;
  #port: number | undefined;
  #child!: Child;

  private constructor(programs: Programs, dataDir: string, user: RunAs) {
    this.#programs = programs;
    this.#dataDir = dataDir;
    this.#user = user;
  }

  static async start(): Promise<DistributionPostgres> {
    const programs = await findPrograms();
    const dataDir = await mkdtemp(join(tmpdir(), 'plank-test-distribution-'));
    const user = await runAs({
      program: programs.postgres,
      folder: dataDir,
      ownerOf: join(dataDir, 'cluster'),
    });
    const server = new DistributionPostgres(programs, dataDir, user);
    await mkdir(server.#cluster, { mode: 0o700 });
    if (user.uid !== undefined) await chown(server.#cluster, user.uid, user.gid!);
    await server.tool('initdb', [
      '--username=postgres',
      '--auth=trust',
      '--encoding=UTF8',
      '--locale=C',
      '--no-sync',
      server.#cluster,
    ]);
    await server.resume();
    return server;
  }

  get #cluster(): string {
    return join(this.#dataDir, 'cluster');
  }

  /** The URL of a database of this server. */
  url(name = 'postgres'): string {
    return `postgres://postgres@127.0.0.1:${this.#port}/${name}`;
  }

  /** Starts the server, on its former port if it had one. */
  async resume(): Promise<void> {
    this.#port = await onFreePort(this.#port, async (port) => {
      const settings = {
        port,
        listen_addresses: '127.0.0.1',
        unix_socket_directories: '',
        fsync: 'off',
        max_connections: 60,
      };
      this.#child = await startChild({
        name: 'postgres of the distribution',
        command: this.#programs.postgres,
        args: ['-D', this.#cluster, ...Object.entries(settings).flatMap(([name, value]) => ['-c', `${name}=${value}`])],
        logFile: join(this.#dataDir, 'postgres.log'),
        prefix: this.#user.prefix,
        env: this.#user.env,
        orphanSignal: 'SIGINT',
      });
      const own = `postgres://postgres@127.0.0.1:${port}/postgres`;
      const answers = () =>
        admin(own, 'select').then(
          () => true,
          () => false,
        );
      await this.#child.waitUntil(answers, 60_000);
      return port;
    });
  }

  /** Stops the server; `immediate` is a crash. */
  async halt(mode: 'fast' | 'immediate' = 'fast'): Promise<void> {
    await this.#child.stop(mode === 'fast' ? 'SIGINT' : 'SIGQUIT', 15_000);
  }

  /** Copies the files of the stopped server aside. */
  async saveFiles(): Promise<void> {
    await this.#copy(this.#cluster, `${this.#cluster}.saved`);
  }

  /** Copies the saved files back. */
  async restoreFiles(): Promise<void> {
    await this.#copy(`${this.#cluster}.saved`, this.#cluster);
  }

  async #copy(from: string, to: string): Promise<void> {
    await rm(to, { recursive: true, force: true });
    await run('cp', ['-a', from, to]);
  }

  /** Runs one of the server's programs. */
  async tool(name: Program, args: string[]): Promise<void> {
    const [command = '', ...rest] = [...this.#user.prefix, this.#programs[name], ...args];
    await run(command, rest, { env: this.#user.env, cwd: '/', timeout: 60_000 });
  }

  /** A path for a dump, where the server's user may write. */
  async file(name: string): Promise<string> {
    const own = join(this.#dataDir, 'files');
    await mkdir(own, { recursive: true });
    if (this.#user.uid !== undefined) await chown(own, this.#user.uid, this.#user.gid!);
    return join(own, name);
  }

  async stop(): Promise<void> {
    await this.halt('immediate');
    await rm(this.#dataDir, { recursive: true, force: true });
  }
}
