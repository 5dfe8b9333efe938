// Owns a PgBouncer for tests of Plank with a pooler: this system's, else the one of Debian's package.

import { chmod, mkdtemp, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { packageProgram } from '#deploy/local/packages.ts';
import { accepts, findProgram, onFreePort, startChild } from '#deploy/local/process.ts';
import { runAs } from '#deploy/local/run-as.ts';

export interface PgBouncer {
  /** the same database, through PgBouncer */
  url: string;
  stop(): Promise<void>;
}

export async function startPgBouncer(databaseUrl: string, mode: 'session' | 'transaction'): Promise<PgBouncer> {
  const program =
    findProgram('pgbouncer') ?? (await packageProgram({ packages: ['pgbouncer'], program: 'usr/sbin/pgbouncer' }));
  const { hostname, port: target, username, password, pathname } = new URL(databaseUrl);
  const folder = await mkdtemp(join(tmpdir(), 'plank-pgbouncer-'));
  await chmod(folder, 0o755);
  const user = await runAs({ program, folder, ownerOf: folder });
  const configuration = join(folder, 'pgbouncer.ini');
  return onFreePort(undefined, async (port) => {
    await writeFile(join(folder, 'users.txt'), `"${username}" "${decodeURIComponent(password)}"\n`);
    await writeFile(
      configuration,
      `[databases]\n* = host=${hostname} port=${target}\n[pgbouncer]\nlisten_addr = 127.0.0.1\nlisten_port = ${port}
unix_socket_dir =\nauth_type = trust\nauth_file = ${join(folder, 'users.txt')}\npool_mode = ${mode}\nlogfile =\npidfile =\n`,
    );
    const child = await startChild({
      name: 'pgbouncer',
      command: program,
      args: [configuration],
      logFile: join(folder, 'log'),
      prefix: user.prefix,
      env: user.env,
    });
    await child.waitUntil(() => accepts(port), 10_000);
    return {
      url: `postgres://${username}@127.0.0.1:${port}${pathname}`,
      async stop() {
        await child.stop();
        await rm(folder, { recursive: true, force: true });
      },
    };
  });
}
