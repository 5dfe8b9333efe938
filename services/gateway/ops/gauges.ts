/**
 * Gauges whose values are computed at each scrape: readiness, connections, subscriptions, channels, lag,
 * and bytes in send buffers.
 */

import type { GatewayMetrics } from '#shared/process/metrics.ts';
import type { Catalog } from '../catalog/catalog.ts';
import type { Channel } from '../channels/channel.ts';
import type { Clients } from '../clients/clients.ts';
import type { Hub } from '../relay/hub.ts';

/** the label of subscriptions in plain mode, whatever their tables are */
const plain = '*';

interface GaugesOptions {
  metrics: GatewayMetrics;
  hub: Hub;
  catalog: Catalog;
  clients: Clients;
  /** the last seq that the leader reported in the roster; null: no leader reports */
  headSeq: () => number | null;
  isReady: () => boolean;
  isFresh: () => boolean;
}

export function showGauges({ metrics, hub, catalog, clients, headSeq, isReady, isFresh }: GaugesOptions): void {
  const {
    ready,
    fresh,
    connections,
    connectionsLimit,
    subscriptions,
    channels,
    behind,
    heldBytes,
    bufferedBytes,
    slowClients,
  } = metrics;
  connectionsLimit.set(clients.max);
  ready.onScrape(() => ready.set(isReady() ? 1 : 0));
  fresh.onScrape(() => fresh.set(isFresh() ? 1 : 0));
  connections.onScrape(() => {
    for (const transport of ['websocket', 'sse'] as const) connections.set({ transport }, clients.count(transport));
  });
  /**
   * Sums of `count` by table; 0 for tables without subscriptions. A detached table disappears with its last
   * subscription.
   */
  const byTable = (count: (channel: Channel) => number) => {
    const counts = new Map<string, number>([plain, ...catalog.tables.map(({ name }) => name)].map((name) => [name, 0]));
    for (const channel of hub.channels) {
      const name = channel.table?.name ?? plain;
      counts.set(name, (counts.get(name) ?? 0) + count(channel));
    }
    return counts;
  };
  subscriptions.onScrape(() => {
    subscriptions.reset();
    for (const [table, count] of byTable(({ members }) => members.size)) subscriptions.set({ table }, count);
  });
  channels.onScrape(() => {
    channels.reset();
    for (const [table, count] of byTable(() => 1)) channels.set({ table }, count);
  });
  behind.onScrape(() => {
    const head = headSeq();
    if (head === null) behind.remove();
    else behind.set(Math.max(0, head - hub.seq));
  });
  heldBytes.onScrape(() => heldBytes.set(hub.heldBytes));
  bufferedBytes.onScrape(() => bufferedBytes.set(clients.survey(0).queuedBytes));
  slowClients.onScrape(() => slowClients.set(clients.survey(0).slow));
}
