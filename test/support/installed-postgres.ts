// Owns the PostgreSQL servers that a system has installed besides the embedded one, as Debian's packages lay them out: which
// there are, and one of them started on a data folder of its own that goes with it.

import { execFile } from 'node:child_process';
import { access, chown, mkdir, mkdtemp, readdir, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { promisify } from 'node:util';
import { type Child, onFreePort, startChild } from '../../deploy/local/process.ts';
import { runAs } from '../../deploy/local/run-as.ts';
import { admin } from './admin.ts';

const run = promisify(execFile);
const folder = '/usr/lib/postgresql';

/** Major versions that Plank supports, oldest first. */
export async function installedVersions(): Promise<number[]> {
  const names = await readdir(folder).catch(() => []);
  const versions: number[] = [];
  for (const name of names) {
    const complete = await access(join(folder, name, 'bin', 'initdb')).then(
      () => true,
      () => false,
    );
    if (complete && Number(name) >= 14) versions.push(Number(name));
  }
  return versions.sort((a, b) => a - b);
}

export interface InstalledPostgres {
  url: string;
  stop(): Promise<void>;
}

export async function startInstalled(version: number): Promise<InstalledPostgres> {
  const bin = join(folder, String(version), 'bin');
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
