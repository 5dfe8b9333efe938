/** The figures that this gateway reports in the roster, for the console of any replica. */
import type { GatewayFigures } from '#shared/bus/node-state.ts';
import type { Clients } from '../clients/clients.ts';
import type { Hub } from '../relay/hub.ts';

export function gatewayFigures(hub: Hub, clients: Clients): GatewayFigures {
  const lag = hub.stats.lag.quantiles([0.5, 0.99], performance.now());
  const { queuedBytes, slow } = clients.survey(0);
  return {
    at: Date.now(),
    seq: hub.seq,
    passed: hub.stats.changes,
    delivered: hub.stats.deliveries,
    lag: lag && { p50: lag[0], p99: lag[1] },
    queuedBytes,
    slow,
    rss: process.memoryUsage.rss(),
  };
}
