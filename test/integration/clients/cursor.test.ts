// Runs of a cursor that end in the moment in which something else begins, on a real socket.

import { once } from 'node:events';
import { type AddressInfo, connect, createServer, type Socket } from 'node:net';
import { afterEach, expect, test } from 'vitest';
import { Catalog, type Table } from '#gateway/catalog/catalog.ts';
import { webSocketFraming } from '#gateway/channels/framing.ts';
import type { Cursor } from '#gateway/relay/cursor.ts';
import type { History } from '#gateway/relay/history.ts';
import { Hub } from '#gateway/relay/hub.ts';
import { Outlet } from '#gateway/relay/outlet.ts';
import { packBatches } from '#shared/log/batch.ts';
import type { Pool } from '#shared/postgres/postgres.ts';
import { createLog } from '#shared/process/logger.ts';
import { createRegistry, gatewayMetrics } from '#shared/process/metrics.ts';
import { openQuery } from '../../support/truth/queries.ts';

const table: Table = {
  id: 7,
  name: 'items',
  schema: 'public',
  table: 'items',
  keyColumns: ['id'],
  columns: [{ name: 'id', type: 'integer', base: 'int4', nullable: false, optional: false, writable: true }],
  imageSql: '',
  version: '',
  largeSql: null,
  rowBytes: 8_388_608,
  policies: [],
  policiesVersion: null,
};
const query = openQuery(table);
const sockets: Socket[] = [];

afterEach(() => {
  for (const socket of sockets.splice(0)) socket.destroy();
});

/** A hub at seq 1, the change at which the table's rows changed without changes of their own. */
function hubAfterBreak(): Hub {
  const hub = new Hub({
    catalog: new Catalog(undefined as unknown as Pool), // nothing here needs Postgres: the ring has the log
    history: undefined as unknown as History,
    maxQueueBytes: 1024 ** 2,
    ringBytes: 1024 ** 2,
    log: createLog('silent', 'test', 'test'),
    metrics: gatewayMetrics(createRegistry('test')),
  });
  hub.reset(1, 0);
  hub.deliver(packBatches(1, [['1', '1', '0', String(table.id), 'R', null, null, null, 't']])[0]!);
  return hub;
}

async function follow(hub: Hub): Promise<{ cursor: Cursor; interruptions: string[] }> {
  const server = createServer();
  server.listen(0, '127.0.0.1');
  await once(server, 'listening');
  const arrived = once(server, 'connection') as Promise<[Socket]>;
  sockets.push(connect((server.address() as AddressInfo).port, '127.0.0.1'));
  const [accepted] = await arrived;
  server.close();
  sockets.push(accepted);
  const interruptions: string[] = [];
  const owner = { onInterrupted: (reason: string) => void interruptions.push(reason) };
  const outlet = new Outlet(accepted, webSocketFraming, { cursors: [] });
  return { cursor: hub.follow(hub.channels.forRows(query, webSocketFraming), outlet, owner), interruptions };
}

/** Runs `work` after this many turns of the queue of promises. */
async function afterTurns(turns: number, work: () => void): Promise<void> {
  for (let i = 0; i < turns; i++) await Promise.resolve();
  work();
}

test('a cursor that meets a break in the log reports the interruption', async () => {
  const { cursor, interruptions } = await follow(hubAfterBreak());
  await cursor.catchUp(0);
  expect(interruptions).toEqual(['rows']);
});

test.each([
  ['paused', (cursor: Cursor) => cursor.pause()],
  ['ended', (cursor: Cursor) => cursor.end()],
  ['sent elsewhere', (cursor: Cursor) => void cursor.catchUp(1)],
])('a cursor that was %s meanwhile reports no interruption of its former run', async (_what, work) => {
  for (let turns = 0; turns < 3; turns++) {
    const { cursor, interruptions } = await follow(hubAfterBreak());
    const run = cursor.catchUp(0);
    let isReported = false;
    await afterTurns(turns, () => {
      isReported = interruptions.length > 0;
      work(cursor);
    });
    await run;
    expect(interruptions, `after ${turns} turns`).toEqual(isReported ? ['rows'] : []);
  }
});
