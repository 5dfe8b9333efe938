// Owns the Redis of a local run, on 127.0.0.1: an installed `redis-server` or `valkey-server`, else one that is
// unpacked from a Debian package. What must stay true:
// - Redis never evicts (`noeviction`), and writes nothing to disk unless `appendonly` is set;
// - a restart keeps port and folder. With `appendonly` it keeps the data; without `appendonly`, Redis is empty
//   afterwards.

import { mkdir, mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { packageProgram } from './packages.ts';
import { accepts, type Child, findProgram, onFreePort, startChild } from './process.ts';

export interface RedisOptions {
  /** If not given, a free port. */
  port?: number;
  /** The folder for the log and the data. If not given, a temporary folder that `stop` removes. */
  dir?: string;
  appendonly?: boolean;
  /** More arguments of the server: `['--maxmemory', '64mb']`. */
  args?: string[];
}

export interface LocalRedis {
  url: string;
  port: number;
  /** The process id, which changes with a restart. */
  readonly pid: number;
  /** Shuts Redis down. May be called several times. */
  stop(): Promise<void>;
  /** Sends SIGKILL, as in a crash. */
  kill(): Promise<void>;
  /** Stops Redis if it runs, and starts it on the same port and folder. */
  restart(): Promise<void>;
}

/** Starts Redis. Resolves when Redis answers commands. */
export async function startRedis(options: RedisOptions = {}): Promise<LocalRedis> {
  const program = await findRedis();
  const dir = options.dir ?? (await mkdtemp(join(tmpdir(), 'plank-redis-')));
  await mkdir(dir, { recursive: true });

  let child!: Child;
  const port = await onFreePort(options.port, async (port) => {
    child = await startServer(port);
    return port;
  }).catch(async (error) => {
    await cleanUp();
    throw error;
  });

  async function cleanUp(): Promise<void> {
    if (options.dir === undefined) await rm(dir, { recursive: true, force: true });
  }

  async function startServer(port: number): Promise<Child> {
    const args = ['--port', `${port}`, '--bind', '127.0.0.1', '--dir', dir, '--daemonize', 'no', '--save', ''];
    args.push('--appendonly', options.appendonly ? 'yes' : 'no', '--maxmemory-policy', 'noeviction');
    const child = await startChild({
      name: 'redis',
      command: program,
      args: [...args, ...(options.args ?? [])],
      logFile: join(dir, 'redis.log'),
    });
    // The log shows that this server has the port. Another process on the port could answer the PING too.
    const ready = () => child.logTail().includes('Ready to accept connections');
    await child.waitUntil(async () => ready() && accepts(port, 'PING\r\n', '+PONG'), 30_000);
    return child;
  }

  return {
    url: `redis://127.0.0.1:${port}`,
    port,
    get pid() {
      return child.pid;
    },
    async stop() {
      await child.stop('SIGTERM', 10_000);
      await cleanUp();
    },
    kill: () => child.kill(),
    async restart() {
      await child.stop('SIGTERM', 10_000);
      child = await startServer(port);
    },
  };
}

/** The path of a Redis or Valkey server program. If there is none, throws an error with advice. */
async function findRedis(): Promise<string> {
  const installed = findProgram('redis-server', 'valkey-server');
  if (installed !== undefined) return installed;
  const failures: string[] = [];
  for (const name of ['redis', 'valkey']) {
    try {
      // In Debian, the server package has only a link to the program. The program is in the tools package.
      const packages = [`${name}-server`, `${name}-tools`];
      return await packageProgram({ packages, program: `usr/bin/${name}-server` });
    } catch (error) {
      failures.push(error instanceof Error ? error.message : String(error));
    }
  }
  throw new Error(
    `there is no redis-server or valkey-server on this system (${failures[0]}): install one, for example by "apt-get install redis-server" or "brew install redis"`,
  );
}
