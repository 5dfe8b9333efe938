// What policies cost a gateway: a change with 10,000 users who each have rows of their own, against 100 such users; the memory of a
// subscription under a policy of its own, against one that is shared; and the memory of a set with a million values.

import type { Socket } from 'node:net';
import { setFlagsFromString } from 'node:v8';
import { runInNewContext } from 'node:vm';
import { Catalog, type PolicyRow, type Table } from '#gateway/catalog/catalog.ts';
import { webSocketFraming } from '#gateway/channels/framing.ts';
import { queryOf } from '#gateway/channels/row-query.ts';
import { RowFilter, Values } from '#gateway/filter/row-filter.ts';
import type { History } from '#gateway/relay/history.ts';
import { Hub } from '#gateway/relay/hub.ts';
import { Outlet } from '#gateway/relay/outlet.ts';
import { Rights } from '#gateway/rights/rights.ts';
import { type Batch, type ChangeRow, packBatches } from '#shared/log/batch.ts';
import type { Pool } from '#shared/postgres/postgres.ts';
import { createLog } from '#shared/process/logger.ts';
import { createRegistry, gatewayMetrics } from '#shared/process/metrics.ts';
import { type BenchOptions, type BenchResult, compared } from './report.ts';
import { inRounds } from './rounds.ts';

const few = 100;
const many = 10_000;
const values = 1_000_000;
/** in one batch, as under load */
const perBatch = 50;

const policy: PolicyRow = {
  role: 'user',
  read: { owner: { $claim: 'sub' } },
  insert: null,
  update: null,
  delete: null,
  check: null,
  read_columns: ['id', 'owner', 'name'],
  write_columns: null,
  presets: null,
};
const column = (name: string, type: string) => ({
  name,
  type,
  base: type,
  nullable: true,
  optional: true,
  writable: true,
});
const table: Table = {
  id: 7,
  name: 'notes',
  schema: 'public',
  table: 'notes',
  keyColumns: ['id'],
  columns: [column('id', 'integer'), column('owner', 'text'), column('name', 'text'), column('hidden', 'text')],
  imageSql: '',
  version: '',
  largeSql: null,
  rowBytes: 8_388_608,
  policies: [policy],
  policiesVersion: null,
};

interface Loaded {
  hub: Hub;
  seq: number;
  /** bytes of frames that were written */
  written: () => number;
}

export async function access({ quick, say }: BenchOptions): Promise<BenchResult> {
  const batches = quick ? 20 : 200;
  const loaded = { few: load(few, (i) => `user-${i}`), many: load(many, (i) => `user-${i}`) };
  const cpu = await inRounds({
    variants: ['few', 'many'],
    rounds: quick ? 3 : 31,
    warmUps: 2,
    run: async (variant) => cost(loaded[variant], batches),
    say,
  });
  const bytes = await inRounds({
    variants: ['own', 'shared'],
    rounds: quick ? 3 : 7,
    warmUps: 1,
    run: async (variant) => bytesEach(variant === 'own' ? (i) => `user-${i}` : () => 'user-0'),
    say,
  });
  const set = setMegabytes();
  const figure = { id: 'a1', name: `a change under ${many.toLocaleString('en')} policies`, unit: 'µs of CPU' };
  const own = Math.round(median(bytes.own));
  const shared = Math.round(median(bytes.shared));
  say(
    `a subscription of its own ${own} bytes, a shared one ${shared}; ${values.toLocaleString('en')} values ${set} MB`,
  );
  const rows = [
    compared({
      ...figure,
      measured: cpu.many,
      against: `${few} policies`,
      baseline: cpu.few,
      target: { atMost: 1.3 },
    }),
  ];
  return { rows, raw: { perBatch, cpu, bytes, setMegabytes: set } };
}

const median = (list: readonly number[]) => list.toSorted((a, b) => a - b)[Math.floor(list.length / 2)]!;

function load(count: number, userOf: (i: number) => string): Loaded {
  const catalog = new Catalog(undefined as unknown as Pool);
  Object.assign(catalog, { byName: () => table });
  const log = createLog('silent', 'bench', 'bench');
  const rights = new Rights({ catalog, log });
  const hub = new Hub({
    catalog,
    history: undefined as unknown as History,
    maxQueueBytes: 1024 ** 2,
    ringBytes: 1024 ** 2,
    log,
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
  for (let i = 0; i < count; i++) {
    const user = userOf(i);
    const query = queryOf({ table: 'notes' }, { catalog, rights }, { user, role: 'user', claims: { sub: user } });
    const outlet = new Outlet(sink, webSocketFraming, { cursors: [] });
    hub.follow(hub.channels.forRows(query, webSocketFraming), outlet, { onInterrupted: () => {} }).goLive();
  }
  return { hub, seq: 0, written: () => bytes };
}

/** Updates of rows of users that both hubs have. */
function batchBehind(seq: number): Batch {
  const rows = Array.from({ length: perBatch }, (_, i): ChangeRow => {
    const id = ((seq + i) * 7919) % few;
    const image = (name: string) => `{"id":${id},"owner":"user-${id}","name":"${name.repeat(20)}","hidden":"x"}`;
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
  if (perChange < 100 || perChange > 350)
    throw new Error(`each change was to match once, but ${perChange} bytes were written`);
  return (user + system) / (count * perBatch);
}

setFlagsFromString('--expose-gc');
const collect = runInNewContext('gc') as () => void;

function heapUsed(): number {
  collect();
  return process.memoryUsage().heapUsed;
}

/** Bytes of the heap for each subscription, without its socket. */
function bytesEach(userOf: (i: number) => string): number {
  const before = heapUsed();
  const loaded = load(many, userOf);
  const each = (heapUsed() - before) / many;
  if (loaded.hub.channels.cursors().length !== many) throw new Error('a subscription is missing');
  return each;
}

/** Megabytes of a set of UUIDs. */
function setMegabytes(): number {
  const { codec } = uuidColumn();
  const before = heapUsed();
  const set = new Values();
  for (let i = 0; i < values; i++) {
    const hex = i.toString(16).padStart(12, '0');
    set.add(`"00000000-0000-4000-8000-${hex}"`, codec);
  }
  const megabytes = (heapUsed() - before) / 1024 ** 2;
  if (set.size !== values) throw new Error('a value is missing');
  return Math.round(megabytes);
}

function uuidColumn() {
  const source: Table = { ...table, name: 'sets', columns: [column('id', 'uuid')] };
  const filter = RowFilter.policy({ ...source }, { id: { in: { $from: 'sets', select: 'id' } } }, 'read', {
    claims: {},
    tableNamed: () => source,
  });
  return filter.sources[0]!.column;
}
