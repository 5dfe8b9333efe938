// Owns a listener and a gateway within the test's own process, as in embedded mode, on the test's database.

import { Gateway } from '#gateway/gateway.ts';
import { Listener } from '#listener/listener.ts';
import { LocalBus } from '#shared/bus/bus.ts';
import { LocalState } from '#shared/bus/shared-state.ts';
import { LocalFanout } from '#shared/log/fanout-local.ts';
import { gatewaySchema, listenerSchema, readConfig } from '#shared/process/config.ts';
import { createLog } from '#shared/process/logger.ts';
import { createRegistry, gatewayMetrics, listenerMetrics } from '#shared/process/metrics.ts';

export interface Embedded {
  url: string;
  /** the operators' server */
  opsUrl: string;
  registry: ReturnType<typeof createRegistry>;
  /** Starts another gateway on the same fan-out, which `stop` ends with the others. */
  startGateway(env?: Record<string, string>): Promise<Gateway>;
  /** Ends the listener; the gateway stays. */
  stopListener(): Promise<void>;
  startListener(): Promise<void>;
  stop(): Promise<void>;
}

/** `env`: settings by their names in docs/configuration.md. There are no canaries by default, because tests count positions. */
export async function startEmbedded(
  databaseUrl: string,
  env: Record<string, string> = {},
  /** gets the lines of the log instead of stdout */
  write?: (line: string) => void,
): Promise<Embedded> {
  const settings = {
    NODE_NAME: 'test',
    LOG_LEVEL: 'silent',
    PORT: '0',
    CANARY_INTERVAL_MS: '0',
    // all clients of tests have one address
    LIMIT_USER_CONNECTIONS: '100000',
    LIMIT_ADDRESS_CONNECTIONS: '100000',
    LIMIT_REQUESTS_PER_SECOND: '100000',
    LIMIT_REFUSED_TOKENS: '100000',
    ...env,
    DATABASE_URL: databaseUrl,
  };
  const log = createLog(settings.LOG_LEVEL, 'test', settings.NODE_NAME, write && { write });
  const registry = createRegistry(settings.NODE_NAME);
  const fanout = new LocalFanout();
  const bus = new LocalBus();
  const shared = new LocalState();
  const ofListener = listenerMetrics(registry);
  const startListener = async () => {
    const config = readConfig(listenerSchema, settings);
    const started = new Listener({ config, publisher: fanout, bus, log, metrics: ofListener });
    await started.start();
    return started;
  };
  let listener = await startListener();
  const gateways: Gateway[] = [];
  const startGateway = async (own: Record<string, string> = {}, metrics = gatewayMetrics(createRegistry('other'))) => {
    const config = readConfig(gatewaySchema, { ...settings, ...own });
    const started = new Gateway({ config, tail: fanout, bus, shared, log, metrics });
    gateways.push(started);
    await started.start();
    return started;
  };
  const gateway = await startGateway({}, gatewayMetrics(registry));
  return {
    url: `http://127.0.0.1:${gateway.port}`,
    opsUrl: `http://127.0.0.1:${gateway.opsPort}`,
    registry,
    startGateway: (own) => startGateway(own),
    stopListener: () => listener.stop(),
    async startListener() {
      listener = await startListener();
    },
    async stop() {
      await Promise.all(gateways.map((one) => one.stop()));
      await listener.stop();
      await fanout.stop();
      await shared.stop();
    },
  };
}
