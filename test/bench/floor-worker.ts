// The process of the floors on fan-out: a server of WebSockets which hands its clients batches of changes, by the gateway's hub, or one by
// one by `ws.send`. A process of its own, so that nothing but that is on its CPU.
//
//   floor-worker.ts <database url> <table>

import { createServer } from 'node:http';
import type { AddressInfo, Socket } from 'node:net';
import { setImmediate as yieldToIo } from 'node:timers/promises';
import { type WebSocket, WebSocketServer } from 'ws';
import { Catalog } from '#gateway/catalog/catalog.ts';
import { webSocketFraming } from '#gateway/channels/framing.ts';
import { History } from '#gateway/relay/history.ts';
import { Hub } from '#gateway/relay/hub.ts';
import { Outlet } from '#gateway/relay/outlet.ts';
import { type ChangeRow, packBatches } from '#shared/log/batch.ts';
import { LocalFanout } from '#shared/log/fanout-local.ts';
import { LogReader } from '#shared/log/log-reader.ts';
import { createPool } from '#shared/postgres/postgres.ts';
import { createLog } from '#shared/process/logger.ts';
import { createRegistry, gatewayMetrics } from '#shared/process/metrics.ts';
import { serve } from './child.ts';

export interface FloorQuestion {
  way: 'hub' | 'ws';
  flushes: number;
  perFlush: number;
}

/** CPU of this process, in µs, for each change that was handed to a client */
export type MicrosPerDelivery = number;

const [databaseUrl = '', tableName = ''] = process.argv.slice(2);
const onError = () => {};
const pool = createPool(databaseUrl, { applicationName: 'bench', statementTimeoutMs: 0, max: 1, onError });
const catalog = new Catalog(pool);
await catalog.load();
const relation = catalog.byName(tableName)!.id;
const metrics = gatewayMetrics(createRegistry('bench'));
const history = new History({ tail: new LocalFanout(), reader: new LogReader(pool), metrics });
const log = createLog('silent', 'bench', 'bench');
const hub = new Hub({ catalog, history, maxQueueBytes: 64 * 1024 ** 2, ringBytes: 1024 ** 2, log, metrics });
hub.reset(1, 0);

const clients: { ws: WebSocket; socket: Socket }[] = [];
const server = createServer();
new WebSocketServer({ server, perMessageDeflate: false }).on('connection', (ws, { socket }) => {
  ws.on('error', () => {});
  clients.push({ ws, socket });
  const outlet = new Outlet(socket, webSocketFraming, { cursors: [] });
  hub.follow(hub.channels.forTables(null), outlet, { onInterrupted: () => {} }).goLive();
});
await new Promise<void>((resolve) => server.listen({ port: 0, host: '127.0.0.1' }, resolve));

const image = (seq: number) =>
  `{"id":${seq},"name":"a name of some length","value":${seq},"at":"2026-01-01T00:00:00+00:00"}`;

serve((server.address() as AddressInfo).port, async ({ way, flushes, perFlush }: FloorQuestion) => {
  const before = process.cpuUsage();
  for (let i = 0; i < flushes; i++) {
    if (way === 'hub') deliver(perFlush);
    else sendEach(perFlush);
    while (clients.some(({ socket }) => socket.writableLength > 0)) await yieldToIo();
  }
  const { user, system } = process.cpuUsage(before);
  return (user + system) / (flushes * perFlush * clients.length);
});

function deliver(count: number): void {
  const rows = Array.from({ length: count }, (_, i): ChangeRow => {
    const seq = hub.seq + i + 1;
    return [`${seq}`, `${seq}`, '0', `${relation}`, 'I', `${seq}`, image(seq), null, 't'];
  });
  for (const batch of packBatches(1, rows)) hub.deliver(batch);
}

function sendEach(count: number): void {
  for (let i = 0; i < count; i++) {
    const text = JSON.stringify({
      table: tableName,
      action: 'INSERT',
      id: i,
      data: JSON.parse(image(i)),
      pos: `e1.${i}`,
    });
    for (const { ws } of clients) ws.send(text);
  }
}
