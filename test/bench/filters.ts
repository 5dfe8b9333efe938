// What a change costs a gateway's hub with 1,000 and with 100,000 subscriptions that each ask for another row ({"id": n}), where one of
// them wants it: it must not grow with those that do not. And against asking every compiled filter.

import type { Socket } from 'node:net';
import { changesOf } from '../../services/gateway/changes.ts';
import { webSocketFraming } from '../../services/gateway/framing.ts';
import type { History } from '../../services/gateway/history.ts';
import { Hub } from '../../services/gateway/hub.ts';
import { Outlet } from '../../services/gateway/outlet.ts';
import { RowFilter } from '../../services/gateway/row-filter.ts';
import { Subscription } from '../../services/gateway/subscription.ts';
import { type Batch, type ChangeRow, packBatches } from '../../shared/batch.ts';
import { Catalog, type Table } from '../../shared/catalog.ts';
import { createLog } from '../../shared/log.ts';
import { createRegistry, gatewayMetrics } from '../../shared/metrics.ts';
import type { Pool } from '../../shared/postgres.ts';

const few = 1_000;
const many = 100_000;
const maxRatio = 1.3;
const minGain = 50;
/** in one batch, as under load */
const perBatch = 50;

const table: Table = {
  id: 7,
  name: 'items',
  schema: 'public',
  table: 'items',
  keyColumns: ['id'],
  columns: [
    { name: 'id', type: 'integer', base: 'int4', nullable: false, optional: false, writable: true },
    { name: 'name', type: 'text', base: 'text', nullable: true, optional: true, writable: true },
  ],
  imageSql: '',
};

interface Loaded {
  hub: Hub;
  seq: number;
  /** frames' bytes that were written */
  written: () => number;
}

export async function filters(options: { quick: boolean; say: (text: string) => void }): Promise<object> {
  const rounds = options.quick ? 3 : 15;
  const batches = options.quick ? 20 : 200;
  const small = load(few);
  const large = load(many);
  for (let i = 0; i < 3; i++) for (const one of [small, large]) cost(one, batches);
  const costs: { small: number; large: number }[] = [];
  // side by side, so that what else the machine does weighs on both
  for (let i = 0; i < rounds; i++) costs.push({ small: cost(small, batches), large: cost(large, batches) });
  const scanned = scan(options.quick ? 20 : 200);
  const smallUs = median(costs.map((round) => round.small));
  const largeUs = median(costs.map((round) => round.large));
  const ratio = median(costs.map((round) => round.large / round.small));
  const gain = scanned / largeUs;
  const { say } = options;
  say(`  ${few} filters      ${smallUs.toFixed(2)} µs of CPU a change`);
  say(
    `  ${many} filters    ${largeUs.toFixed(2)} µs; ${ratio.toFixed(2)} times as much: ${verdict(ratio <= maxRatio)} (at most ${maxRatio})`,
  );
  say(
    `  asking each       ${scanned.toFixed(0)} µs; ${gain.toFixed(0)} times as much: ${verdict(gain >= minGain)} (at least ${minGain})`,
  );
  return { smallUs, largeUs, ratio, scanUs: scanned, gain, met: ratio <= maxRatio && gain >= minGain };
}

const verdict = (isMet: boolean) => (isMet ? 'met' : 'MISSED');

function load(count: number): Loaded {
  const hub = new Hub({
    catalog: new Catalog(undefined as unknown as Pool),
    history: undefined as unknown as History,
    maxQueueBytes: 1024 ** 2,
    ringBytes: 1024 ** 2,
    log: createLog('silent', 'bench', 'bench'),
    metrics: gatewayMetrics(createRegistry('bench')),
  });
  let bytes = 0;
  const sink = {
    destroyed: false,
    writableLength: 0,
    write(buffer: Buffer) {
      bytes += buffer.length;
    },
  } as unknown as Socket;
  hub.reset(1, 0);
  for (let id = 0; id < count; id++) {
    const words = { table, filter: new RowFilter(table, { id }), columns: null };
    const channel = hub.filteredChannel(words, webSocketFraming);
    const subscription = new Subscription(channel, new Outlet(sink, webSocketFraming), { onGone: () => {} });
    hub.join(subscription);
    hub.goLive(subscription);
  }
  return { hub, seq: 0, written: () => bytes };
}

/** Updates of rows that both hubs have subscriptions to. */
function batchBehind(seq: number): Batch {
  const rows = Array.from({ length: perBatch }, (_, i): ChangeRow => {
    const id = ((seq + i) * 7919) % few;
    const image = (name: string) => `{"id":${id},"name":"${name.repeat(20)}"}`;
    return [`${seq + i + 1}`, `${1000 + seq + i}`, '0', `${table.id}`, 'U', `${id}`, image('new'), image('old'), 't'];
  });
  return packBatches(1, rows)[0]!;
}

/** CPU µs a change. */
function cost(loaded: Loaded, count: number): number {
  const list = Array.from({ length: count }, (_, i) => batchBehind(loaded.seq + i * perBatch));
  const before = loaded.written();
  const started = process.cpuUsage();
  for (const batch of list) loaded.hub.deliver(batch);
  const { user, system } = process.cpuUsage(started);
  loaded.seq += count * perBatch;
  const perChange = (loaded.written() - before) / (count * perBatch);
  if (perChange < 100 || perChange > 300)
    throw new Error(`each change was to match once, but ${perChange} bytes were written`);
  return (user + system) / (count * perBatch);
}

/** CPU µs a change where each of the many filters is asked of the old row and the new. */
function scan(count: number): number {
  const all = Array.from({ length: many }, (_, id) => new RowFilter(table, { id }));
  const changes = Array.from({ length: Math.ceil(count / perBatch) }, (_, i) => batchBehind(i * perBatch))
    .flatMap((batch) => changesOf(batch, () => true))
    .slice(0, count);
  let matched = 0;
  const started = process.cpuUsage();
  for (const { newRow, oldRow } of changes)
    for (const { admits } of all) if (admits(newRow!) && admits(oldRow!)) matched++;
  const { user, system } = process.cpuUsage(started);
  if (matched !== count) throw new Error(`${matched} matches of ${count} changes`);
  return (user + system) / count;
}

function median(values: readonly number[]): number {
  return values.toSorted((a, b) => a - b)[values.length >> 1]!;
}
