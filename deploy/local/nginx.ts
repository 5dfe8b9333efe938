// Owns the nginx of a local run: the installed one, else one that is unpacked from the Debian package. What must stay
// true:
// - nginx runs the project's nginx.conf, with only the upstreams, the ports and the folders replaced;
// - when gateways are added or removed, nginx reloads its configuration, so that open sockets stay open.

import { chmod, mkdtemp, readFile, rm, writeFile } from 'node:fs/promises';
import { isIP } from 'node:net';
import { networkInterfaces, tmpdir } from 'node:os';
import { join } from 'node:path';
import { packageProgram } from './packages.ts';
import { type Child, findProgram, freePort, onFreePort, startChild } from './process.ts';

export interface NginxOptions {
  /** If not given, the project's nginx.conf. */
  confFile?: string;
  /** If not given, a free port. */
  port?: number;
  /** Like the setting HOST. If not given, `localhost`. */
  host?: string;
  /** Addresses of the gateways: `127.0.0.1:8001`. */
  upstreams: string[];
  /** The addresses of the gateways' operations ports. If not given, nginx serves no operators. */
  operations?: { port?: number; upstreams: string[] };
  /** Whether nginx limits new connections from this machine like those from public addresses. */
  limitsAll?: boolean;
}

export interface LocalNginx {
  url: string;
  port: number;
  /** The address where nginx serves operators. */
  operationsUrl: string | undefined;
  /** The process id, which changes with a restart. */
  readonly pid: number;
  /** Sends new connections to these gateways. Resolves when the reload has been requested. */
  setUpstreams(upstreams: string[], operations?: string[]): Promise<void>;
  /** Ends nginx and its open connections. May be called several times. */
  stop(): Promise<void>;
  /** Sends SIGKILL to nginx and its workers. */
  kill(): Promise<void>;
  restart(): Promise<void>;
}

/** Starts nginx. Resolves when nginx accepts connections. */
export async function startNginx(options: NginxOptions): Promise<LocalNginx> {
  const program = await findNginx();
  const template = await readFile(options.confFile ?? join(import.meta.dirname, '../../nginx.conf'), 'utf8');
  const folder = await mkdtemp(join(tmpdir(), 'plank-nginx-'));
  // If root starts nginx, its workers run as another user. That user must reach the folders for temporary files.
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
      // If the master got SIGKILL, its workers would live on.
      orphanSignal: 'SIGTERM',
    });
    // nginx writes its process id after it has bound its port. A check of the port is not enough: another process may
    // have the port, and would answer.
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

/** The name under which this machine reaches a server that listens on `host`. */
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

/** Adapts the project's nginx.conf to this machine: addresses replace Docker's names. A pure function. */
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
  // the new text of each part that nginx.conf marks; parts that are not listed here stay as they are
  const parts: Record<string, string | undefined> = {
    resolver: '',
    listen: to.listen,
    ...(to.limitsAll ? { private: '' } : {}),
    ...(to.operationsPort === undefined ? { operators: '' } : {}),
  };
  const marked = /^ *# plank:(\w+)\n[\s\S]*?^ *# plank:end\n/gm;
  // In each upstream, this line is repeated for each gateway.
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
