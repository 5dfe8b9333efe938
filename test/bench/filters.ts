// What a change costs a gateway's hub with 1,000 and with 100,000 subscriptions that each ask for another row ({"id": n}), where one of
// them wants it: it must not grow with those that do not. And against asking every compiled filter.

import type { Socket } from 'node:net';
import { Catalog, type Table } from '#gateway/catalog/catalog.ts';
import { changesOf } from '#gateway/channels/change.ts';
import { webSocketFraming } from '#gateway/channels/framing.ts';
import { RowFilter } from '#gateway/filter/row-filter.ts';
import type { History } from '#gateway/relay/history.ts';
import { Hub } from '#gateway/relay/hub.ts';
import { Outlet } from '#gateway/relay/outlet.ts';
import { type Batch, type ChangeRow, packBatches } from '#shared/log/batch.ts';
import type { Pool } from '#shared/postgres/postgres.ts';
import { createLog } from '#shared/process/logger.ts';
import { createRegistry, gatewayMetrics } from '#shared/process/metrics.ts';
import { openQuery } from '../support/truth/queries.ts';
import { type BenchOptions, type BenchResult, compared } from './report.ts';
import { inRounds } from './rounds.ts';

const few = 1_000;
const many = 100_000;
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
  version: '',
  largeSql: null,
  rowBytes: 8_388_608,
  policies: [],
  policiesVersion: null,
};

interface Loaded {
  hub: Hub;
  seq: number;
  /** frames' bytes that were written */
  written: () => number;
}

export async function filters({ quick, say }: BenchOptions): Promise<BenchResult> {
  const batches = quick ? 20 : 200;
  const loaded = { few: load(few), many: load(many) };
  const all = Array.from({ length: many }, (_, id) => RowFilter.parse(table, { id }));
  const cpu = await inRounds({
    variants: ['few', 'many', 'scan'],
    rounds: quick ? 3 : 31,
    warmUps: 2,
    run: async (variant) => (variant === 'scan' ? scan(all, quick ? 10 : 50) : cost(loaded[variant], batches)),
    say,
  });
  const name = `a change of ${many.toLocaleString('en')} filters`;
  const figure = { id: 'f2', name, unit: 'µs of CPU', measured: cpu.many };
  const rows = [
    compared({
      ...figure,
      against: `${few.toLocaleString('en')} filters`,
      baseline: cpu.few,
      target: { atMost: 1.3 },
    }),
    compared({ ...figure, against: 'asking each filter', baseline: cpu.scan, target: { atMost: 1 / 50 } }),
  ];
  return { rows, raw: { perBatch, cpu } };
}

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
    const filter = RowFilter.parse(table, { id });
    const channel = hub.channels.forRows(openQuery(table, filter), webSocketFraming);
    const outlet = new Outlet(sink, webSocketFraming, { cursors: [] });
    hub.follow(channel, outlet, { onInterrupted: () => {} }).goLive();
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
function scan(all: readonly RowFilter[], count: number): number {
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
