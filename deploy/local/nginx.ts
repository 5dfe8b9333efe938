// Owns the nginx that a local run brings along: of this system, else unpacked from the Debian package. What must stay true:
// - it runs the project's own nginx.conf, with only the upstreams, the port and the folders replaced;
// - gateways come and go by a reload: open sockets stay open.

import { chmod, mkdtemp, readFile, rm, writeFile } from 'node:fs/promises';
import { isIP } from 'node:net';
import { networkInterfaces, tmpdir } from 'node:os';
import { join } from 'node:path';
import { packageProgram } from './packages.ts';
import { type Child, findProgram, freePort, onFreePort, startChild } from './process.ts';

export interface NginxOptions {
  /** Without it, the project's. */
  confFile?: string;
  /** Without it, a free one. */
  port?: number;
  /** As the setting HOST; without it, this machine's own addresses. */
  host?: string;
  /** Addresses of the gateways: `127.0.0.1:8001`. */
  upstreams: string[];
  /** Addresses of their operations ports. Without them, operators are not served. */
  operations?: { port?: number; upstreams: string[] };
  /** Counts new connections of this machine as well, as those of strangers. */
  limitsAll?: boolean;
}

export interface LocalNginx {
  url: string;
  port: number;
  /** Where operators are served. */
  operationsUrl: string | undefined;
  /** Another one after a restart. */
  readonly pid: number;
  /** New connections go to these from now on. Resolves when the reload is asked for. */
  setUpstreams(upstreams: string[], operations?: string[]): Promise<void>;
  /** Ends it and its open connections. Idempotent. */
  stop(): Promise<void>;
  /** SIGKILL, to its workers too. */
  kill(): Promise<void>;
  restart(): Promise<void>;
}

/** Resolves when it accepts connections. */
export async function startNginx(options: NginxOptions): Promise<LocalNginx> {
  const program = await findNginx();
  const template = await readFile(options.confFile ?? join(import.meta.dirname, '../../nginx.conf'), 'utf8');
  const folder = await mkdtemp(join(tmpdir(), 'plank-nginx-'));
  // Started by root, its workers run as another user, who must reach the folders for temporary files.
  await chmod(folder, 0o755);
  const confFile = join(folder, 'nginx.conf');
  let upstreams = options.upstreams;
  let operations = options.operations?.upstreams ?? [];
  let operationsPort: number | undefined;
  const conf = (port: number) =>
    localConf(template, {
      listen: listenLines(options.host ?? 'localhost', port),
      upstreams,
      operations,
      operationsPort,
      folder,
      limitsAll: options.limitsAll ?? false,
    });

  let child!: Child;
  const port = await onFreePort(options.port, async (port) => {
    operationsPort = options.operations && (options.operations.port ?? (await freePort()));
    child = await startServer(port);
    return port;
  }).catch(async (error) => {
    await cleanUp();
    throw error;
  });

  function cleanUp(): Promise<void> {
    return rm(folder, { recursive: true, force: true });
  }

  async function startServer(port: number): Promise<Child> {
    await writeFile(confFile, conf(port));
    const child = await startChild({
      name: 'nginx',
      command: program,
      args: ['-p', folder, '-c', confFile, '-e', 'stderr', '-g', 'daemon off;'],
      logFile: join(folder, 'nginx.log'),
      // Its workers outlive a killed master.
      orphanSignal: 'SIGTERM',
    });
    // It writes its process id when it has bound its port; until then, whoever has taken the port would answer.
    const bound = async () =>
      (await readFile(join(folder, 'nginx.pid'), 'utf8').catch(() => '')).trim() === `${child.pid}`;
    await child.waitUntil(bound, 10_000);
    return child;
  }

  return {
    url: `http://${nameOf(options.host)}:${port}`,
    port,
    operationsUrl: operationsPort === undefined ? undefined : `http://127.0.0.1:${operationsPort}`,
    get pid() {
      return child.pid;
    },
    async setUpstreams(next, nextOperations = operations) {
      upstreams = next;
      operations = nextOperations;
      await writeFile(confFile, conf(port));
      child.signal('SIGHUP');
    },
    async stop() {
      await child.stop('SIGTERM', 5_000);
      await cleanUp();
    },
    kill: () => child.kill(),
    async restart() {
      await child.stop('SIGTERM', 5_000);
      child = await startServer(port);
    },
  };
}

/** Where this machine reaches what listens on `host`. */
function nameOf(host = 'localhost'): string {
  if (['localhost', '::', '0.0.0.0'].includes(host)) return '127.0.0.1';
  return isIP(host) === 6 ? `[${host}]` : host;
}

function listenLines(host: string, port: number): string {
  const hasIPv6 = Object.values(networkInterfaces()).some((each) => each?.some(({ address }) => address === '::1'));
  const loopback = hasIPv6 ? ['127.0.0.1', '::1'] : ['127.0.0.1'];
  const every = hasIPv6 ? '::' : '0.0.0.0';
  const addresses = host === 'localhost' ? loopback : [host === '::' ? every : host];
  return addresses
    .map((address) =>
      isIP(address) === 6 ? `[${address}]:${port}${address === '::' ? ' ipv6only=off' : ''}` : `${address}:${port}`,
    )
    .map((address) => `    listen ${address} reuseport backlog=4096;\n`)
    .join('');
}

/** The project's nginx.conf for this machine: fixed addresses in place of Docker's names. Pure. */
function localConf(
  template: string,
  to: {
    listen: string;
    upstreams: string[];
    operations: string[];
    operationsPort: number | undefined;
    folder: string;
    limitsAll: boolean;
  },
): string {
  // what is not named here stays as it is
  const parts: Record<string, string | undefined> = {
    resolver: '',
    listen: to.listen,
    ...(to.limitsAll ? { private: '' } : {}),
    ...(to.operationsPort === undefined ? { operators: '' } : {}),
  };
  const marked = /^ *# plank:(\w+)\n[\s\S]*?^ *# plank:end\n/gm;
  // as many lines as there are gateways, in each of its upstreams
  const gateway = /^( *server )gateway:(\d+) resolve( .*\n)/gm;
  return template
    .replace(marked, (whole, name: string) => parts[name] ?? whole)
    .replace(gateway, (_, before: string, port: string, after: string) =>
      (port === '8000' ? to.upstreams : to.operations).map((address) => `${before}${address}${after}`).join(''),
    )
    .replace('listen 8002;', `listen 127.0.0.1:${to.operationsPort};`)
    .replaceAll('/tmp/', `${to.folder}/`)
    .replace('/dev/stderr', 'stderr');
}

async function findNginx(): Promise<string> {
  const installed = findProgram('nginx');
  if (installed !== undefined) return installed;
  try {
    return await packageProgram({ packages: ['nginx'], program: 'usr/sbin/nginx' });
  } catch (cause) {
    throw new Error(
      `there is no nginx on this system (${(cause as Error).message}): install one, for example by "apt-get install nginx" or "brew install nginx"`,
      { cause },
    );
  }
}
