// Owns a PostgreSQL of this system's distribution, on a data folder of the test's own: one with LLVM, and with pg_dump and pg_restore, which
// the packages of npm lack. What must stay true: where there is none, tests fail and say what to install; they are never skipped.

import { execFile } from 'node:child_process';
import { access, chown, mkdir, mkdtemp, readdir, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { promisify } from 'node:util';
import { type Child, onFreePort, startChild } from '../../deploy/local/process.ts';
import { type RunAs, runAs } from '../../deploy/local/run-as.ts';
import { admin } from './admin.ts';

const run = promisify(execFile);
const folder = '/usr/lib/postgresql';
const needed = ['bin/initdb', 'bin/postgres', 'bin/pg_dump', 'bin/pg_restore', 'lib/llvmjit.so'];

/** The newest version that has all that is needed. */
async function findVersion(): Promise<string> {
  const versions = (await readdir(folder).catch(() => [])).map(Number).filter((version) => version >= 14);
  for (const version of versions.sort((a, b) => b - a)) {
    const place = join(folder, String(version));
    const missing = await Promise.all(
      needed.map((file) =>
        access(join(place, file)).then(
          () => null,
          () => file,
        ),
      ),
    );
    if (missing.every((file) => file === null)) return place;
  }
  throw new Error(`this test needs PostgreSQL as Debian or Ubuntu builds it, with LLVM: apt-get install postgresql`);
}

export class DistributionPostgres {
  readonly #place: string;
  readonly #dataDir: string;
  readonly #user: RunAs;
  #port: number | undefined;
  #child!: Child;

  private constructor(place: string, dataDir: string, user: RunAs) {
    this.#place = place;
    this.#dataDir = dataDir;
    this.#user = user;
  }

  static async start(): Promise<DistributionPostgres> {
    const place = await findVersion();
    const dataDir = await mkdtemp(join(tmpdir(), 'plank-test-distribution-'));
    const user = await runAs({
      program: join(place, 'bin/postgres'),
      folder: dataDir,
      ownerOf: join(dataDir, 'cluster'),
    });
    const server = new DistributionPostgres(place, dataDir, user);
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

  /** Of a database of this server. */
  url(name = 'postgres'): string {
    return `postgres://postgres@127.0.0.1:${this.#port}/${name}`;
  }

  /** Starts it, on the port that it had. */
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
        command: join(this.#place, 'bin/postgres'),
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

  /** `immediate` is a crash. */
  async halt(mode: 'fast' | 'immediate' = 'fast'): Promise<void> {
    await this.#child.stop(mode === 'fast' ? 'SIGINT' : 'SIGQUIT', 15_000);
  }

  /** Copies the files of the stopped server aside. */
  async saveFiles(): Promise<void> {
    await this.#copy(this.#cluster, `${this.#cluster}.saved`);
  }

  /** Copies them back. */
  async restoreFiles(): Promise<void> {
    await this.#copy(`${this.#cluster}.saved`, this.#cluster);
  }

  async #copy(from: string, to: string): Promise<void> {
    await rm(to, { recursive: true, force: true });
    await run('cp', ['-a', from, to]);
  }

  /** Runs one of its programs. */
  async tool(name: string, args: string[]): Promise<void> {
    const [command = '', ...rest] = [...this.#user.prefix, join(this.#place, 'bin', name), ...args];
    await run(command, rest, { env: this.#user.env, cwd: '/', timeout: 60_000 });
  }

  /** A path for a dump, which its user may write. */
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
