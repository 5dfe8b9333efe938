/**
 * A cluster of real processes on this machine, as in production: Postgres, Redis, listeners, gateways, and nginx in
 * front of them. `npm run cluster`, the tests and the benchmarks use it. Each part can be killed and restarted alone;
 * `stop` ends all parts.
 */
import { mkdir, mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { migrate } from '#shared/postgres/migrate.ts';
import { makeSample } from '#shared/postgres/sample.ts';
import { once } from '#shared/waiting.ts';
import { type LocalNginx, startNginx } from './nginx.ts';
import { type LocalPostgres, startPostgres } from './postgres.ts';
import { type Child, onFreePort, startChild } from './process.ts';
import { type LocalRedis, startRedis } from './redis.ts';

const root = join(import.meta.dirname, '../..');
const startTimeoutMs = 20_000;

export interface ClusterOptions {
  gateways: number;
  listeners?: number;
  /** the port where nginx listens; if not given, a free port of loopback */
  port?: number;
  host?: string;
  /** false: there is no nginx, and clients connect to the gateways */
  balanced?: boolean;
  /** whether nginx limits new connections from this machine like those from public addresses */
  limitsAll?: boolean;
  /** the folder for data and logs; if not given, a temporary folder that `stop` removes */
  folder?: string;
  /** whether to delete the data of an earlier run */
  fresh?: boolean;
  /** the setting fsync of the new Postgres; false only for data that may be lost */
  fsync?: boolean;
  /** an existing database and an existing Redis; if given, the cluster starts no Postgres, or no Redis */
  databaseUrl?: string;
  redisUrl?: string;
  /** whether to make the sample table; if not set, only a new Postgres gets the table */
  sample?: boolean;
  /** settings that all listeners and gateways get (docs/configuration.md) */
  env?: Record<string, string>;
  /**
   * settings of one role. They override all others, so that a test can put a proxy before the role's database or Redis.
   */
  listenerEnv?: Record<string, string>;
  gatewayEnv?: Record<string, string>;
  log?: (message: string) => void;
}

/** A listener or gateway process. */
export interface ClusterNode {
  readonly name: string;
  /** the address of the node's HTTP server; the address stays the same after a restart */
  readonly url: string;
  /** the address of a gateway's server for operators */
  readonly opsUrl: string;
  readonly pid: number;
  readonly running: boolean;
  stop(): Promise<void>;
  kill(): Promise<void>;
  /** Starts the process after a `stop` or `kill`. Resolves when the process is ready. */
  start(): Promise<void>;
  signal(name: NodeJS.Signals): void;
  logTail(lines?: number): string;
}

export class Cluster {
  readonly databaseUrl: string;
  readonly redisUrl: string;
  readonly listeners: ClusterNode[] = [];
  readonly gateways: ClusterNode[] = [];
  postgres: LocalPostgres | undefined;
  redis: LocalRedis | undefined;
  nginx: LocalNginx | undefined;
  readonly #folder: string;
  readonly #options: ClusterOptions;
  readonly #stack = new AsyncDisposableStack();
  #gatewaysEver = 0;
  /** gateways that have been ready once; before that, a gateway may still try another port */
  readonly #known = new Set<ClusterNode>();

  private constructor(options: ClusterOptions, folder: string, databaseUrl: string, redisUrl: string) {
    this.#options = options;
    this.#folder = folder;
    this.databaseUrl = databaseUrl;
    this.redisUrl = redisUrl;
  }

  static async start(options: ClusterOptions): Promise<Cluster> {
    const log = options.log ?? (() => {});
    const folder = options.folder ?? (await mkdtemp(join(tmpdir(), 'plank-cluster-')));
    await mkdir(folder, { recursive: true });
    const stack = new AsyncDisposableStack();
    if (!options.folder) stack.defer(() => rm(folder, { recursive: true, force: true }));
    try {
      let postgres: LocalPostgres | undefined;
      let redis: LocalRedis | undefined;
      if (!options.databaseUrl) {
        log('starting PostgreSQL …');
        postgres = await startPostgres({
          dataDir: join(folder, 'postgres'),
          fresh: options.fresh ?? false,
          fsync: options.fsync ?? true,
          log,
        });
        stack.defer(() => postgres?.stop());
      }
      if (!options.redisUrl) {
        log('starting Redis …');
        redis = await startRedis({ dir: join(folder, 'redis') });
        stack.defer(() => redis?.stop());
      }
      const databaseUrl = options.databaseUrl ?? postgres!.url;
      const cluster = new Cluster(options, folder, databaseUrl, options.redisUrl ?? redis!.url);
      cluster.postgres = postgres;
      cluster.redis = redis;
      await migrate(databaseUrl);
      const problem = (options.sample ?? postgres !== undefined) ? await makeSample(databaseUrl) : undefined;
      if (problem) log(problem);
      cluster.#stack.use(stack.move());
      try {
        log(`starting ${options.listeners ?? 1} listener(s) and ${options.gateways} gateway(s) …`);
        await Promise.all(Array.from({ length: options.listeners ?? 1 }, () => cluster.addListener()));
        await Promise.all(Array.from({ length: options.gateways }, () => cluster.addGateway()));
        if (options.balanced !== false) {
          log('starting nginx …');
          cluster.nginx = await startNginx({
            upstreams: cluster.#upstreams(),
            operations: { upstreams: cluster.#operations() },
            limitsAll: options.limitsAll ?? false,
            ...(options.port === undefined ? {} : { port: options.port }),
            ...(options.host === undefined ? {} : { host: options.host }),
          });
          cluster.#stack.defer(() => cluster.nginx?.stop());
        }
        return cluster;
      } catch (error) {
        await cluster.stop();
        throw error;
      }
    } finally {
      await stack.disposeAsync();
    }
  }

  /** The address where clients connect: nginx, or the first gateway. */
  get url(): string {
    return this.nginx?.url ?? this.gateways[0]!.url;
  }

  get webSocketUrl(): string {
    return `${this.url.replace('http', 'ws')}/ws`;
  }

  async addListener(): Promise<ClusterNode> {
    const name = `listener-${this.listeners.length + 1}`;
    const node = new ServiceNode(name, 'listener', 'LISTENER_PORT', this.#folder, this.#env(this.#options.listenerEnv));
    this.listeners.push(node);
    await this.#adopt(node);
    return node;
  }

  async addGateway(): Promise<ClusterNode> {
    const name = `gateway-${++this.#gatewaysEver}`;
    const node = new ServiceNode(name, 'gateway', 'PORT', this.#folder, this.#env(this.#options.gatewayEnv));
    this.gateways.push(node);
    await this.#adopt(node);
    this.#known.add(node);
    await this.#balance();
    return node;
  }

  /** Stops a gateway for good, as scaling down does. Reloads nginx after the gateway has ended. */
  async removeGateway(node: ClusterNode): Promise<void> {
    await node.stop();
    this.gateways.splice(this.gateways.indexOf(node), 1);
    await this.#balance();
  }

  readonly stop = once(() => this.#stack.disposeAsync());

  async #adopt(node: ServiceNode): Promise<void> {
    this.#stack.defer(() => node.stop());
    await node.start();
  }

  #env(own: Record<string, string> | undefined): Record<string, string> {
    const { env } = this.#options;
    // Listeners and gateways listen on 127.0.0.1 only, because only nginx and tests on this machine connect to them.
    return {
      LOG_LEVEL: 'info',
      HOST: '127.0.0.1',
      AUTH: 'off',
      ...env,
      DATABASE_URL: this.databaseUrl,
      REDIS_URL: this.redisUrl,
      ...own,
    };
  }

  async #balance(): Promise<void> {
    await this.nginx?.setUpstreams(this.#upstreams(), this.#operations());
  }

  #upstreams(): string[] {
    return this.#balanced().map((node) => new URL(node.url).host);
  }

  #operations(): string[] {
    return this.#balanced().map((node) => new URL(node.opsUrl).host);
  }

  #balanced(): ClusterNode[] {
    return this.gateways.filter((node) => node.running && this.#known.has(node));
  }
}

class ServiceNode implements ClusterNode {
  readonly name: string;
  readonly #service: string;
  readonly #portVariable: string;
  readonly #logFile: string;
  readonly #env: Record<string, string>;
  #child: Child | undefined;
  #port: number | undefined;
  #opsPort: number | undefined;

  constructor(name: string, service: string, portVariable: string, folder: string, env: Record<string, string>) {
    this.name = name;
    this.#service = service;
    this.#portVariable = portVariable;
    this.#logFile = join(folder, `${name}.log`);
    this.#env = env;
  }

  get url(): string {
    return `http://127.0.0.1:${this.#port}`;
  }

  get opsUrl(): string {
    return `http://127.0.0.1:${this.#opsPort}`;
  }

  get pid(): number {
    return this.#child!.pid;
  }

  get running(): boolean {
    return this.#child?.running ?? false;
  }

  async start(): Promise<void> {
    if (this.running) return;
    await onFreePort(this.#port, (port) => onFreePort(this.#opsPort, (opsPort) => this.#run(port, opsPort)));
  }

  async #run(port: number, opsPort: number): Promise<void> {
    this.#child = await startChild({
      name: this.name,
      command: process.execPath,
      args: [join(root, `services/${this.#service}/main.ts`)],
      logFile: this.#logFile,
      cwd: root,
      env: {
        PATH: process.env.PATH,
        HOME: process.env.HOME,
        NODE_NAME: this.name,
        OPS_PORT: String(opsPort),
        ...this.#env,
        [this.#portVariable]: String(port),
      },
    });
    const isReady = () =>
      fetch(`http://127.0.0.1:${port}/health/ready`).then(
        (answer) => answer.ok,
        () => false,
      );
    await this.#child.waitUntil(isReady, startTimeoutMs);
    this.#port = port;
    this.#opsPort = opsPort;
  }

  async stop(): Promise<void> {
    await this.#child?.stop();
  }

  async kill(): Promise<void> {
    await this.#child?.kill();
  }

  signal(name: NodeJS.Signals): void {
    this.#child?.signal(name);
  }

  logTail(lines?: number): string {
    return this.#child?.logTail(lines) ?? '';
  }
}
