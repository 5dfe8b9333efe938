/**
 * What this replica knows of one change: whether it has it, which of its subscriptions the change concerns, and, of one client,
 * for each of its subscriptions whether it got it and if not, why. One process of each log is asked by another (ops-explain.ts).
 */
import { z } from 'zod';
import { type Batch, BatchReader, isBreak } from '#shared/log/batch.ts';
import type { Catalog } from '../catalog/catalog.ts';
import { Change } from '../channels/change.ts';
import { FilteredChannel } from '../channels/rows-channel.ts';
import { type Channel, TablesChannel } from '../channels/tables-channel.ts';
import type { Clients } from '../clients/clients.ts';
import type { Peer } from '../clients/connection.ts';
import { ImageError } from '../filter/image.ts';
import type { Subscription } from '../relay/cursor.ts';
import type { History } from '../relay/history.ts';
import type { Hub } from '../relay/hub.ts';

/** subscriptions that are asked about one change at most */
const maxAsked = 20_000;

export const question = z.object({
  epoch: z.number(),
  seq: z.number(),
  /** the id of a client of the replica that is asked */
  client: z.number().optional(),
});
export type Question = z.infer<typeof question>;

const judged = z.object({
  /** what it asked for */
  table: z.string(),
  filter: z.string().nullable(),
  columns: z.array(z.string()).nullable(),
  state: z.string(),
  /** the seq behind which it began */
  began: z.number(),
  /** it has been given everything up to here */
  cursor: z.number(),
  /** what the change does to its rows; null: nothing */
  effect: z.string().nullable(),
  why: z.enum(['matched', 'other-table', 'filter', 'began-later', 'in-rows', 'not-yet', 'shape']),
});
export type Judged = z.infer<typeof judged>;

export const replicaAnswer = z.object({
  epoch: z.number(),
  seq: z.number(),
  mode: z.string(),
  /** subscriptions of all clients that cover the table, and those of them that the change concerns */
  subscriptions: z.number(),
  matched: z.number(),
  client: z
    .object({ address: z.string(), mode: z.string(), queuedBytes: z.number(), subscriptions: z.array(judged) })
    .nullable(),
});
export type ReplicaAnswer = z.infer<typeof replicaAnswer>;

export interface ExplainDeps {
  hub: Hub;
  history: History;
  catalog: Catalog;
  clients: Clients;
  mode: () => string;
}

/** Rejects where the change can be read neither from memory, nor from Redis, nor from Postgres. */
export async function explainHere(asked: Question, deps: ExplainDeps): Promise<ReplicaAnswer> {
  const { hub, catalog, clients } = deps;
  const peer = asked.client === undefined ? undefined : clients.find(asked.client);
  const change = await findChange(asked, deps);
  const table = catalog.byId(change.relation)?.name;
  let subscriptions = 0;
  let matched = 0;
  for (const channel of hub.channels()) {
    if (!isAbout(channel, table) || subscriptions > maxAsked) continue;
    subscriptions += channel.users.size;
    if (effectOn(channel, change) !== null) matched += channel.users.size;
  }
  return {
    epoch: hub.epoch,
    seq: hub.seq,
    mode: deps.mode(),
    subscriptions,
    matched,
    client: peer ? judgeClient(peer, change, table, hub.seq) : null,
  };
}

async function findChange({ epoch, seq }: Question, { hub, history }: ExplainDeps): Promise<Change> {
  const batches: readonly Batch[] = hub.recent(seq) ?? (await history.read(seq - 1, epoch));
  for (const batch of batches.map((each) => hub.readable(each))) {
    if (seq < batch.firstSeq || seq > batch.lastSeq) continue;
    const reader = new BatchReader(batch);
    while (reader.next()) if (reader.seq === seq) return new Change(reader);
  }
  throw new Error(`the change ${seq} is not to be found`);
}

function judgeClient(peer: Peer, change: Change, table: string | undefined, seq: number): ReplicaAnswer['client'] {
  const { address, mode, outlet } = peer;
  const subscriptions = Array.from(outlet.subscriptions, (subscription) => judge(subscription, change, table, seq));
  return { address, mode, queuedBytes: outlet.queuedBytes, subscriptions };
}

function judge(subscription: Subscription, change: Change, table: string | undefined, seq: number): Judged {
  const { channel, state, began, keepsRows } = subscription;
  const cursor = state === 'live' ? seq : subscription.cursor;
  const said = { ...wordsOf(channel), state, began, cursor };
  if (!isAbout(channel, table)) return { ...said, effect: null, why: 'other-table' };
  const effect = effectOn(channel, change);
  if (effect === 'shape') return { ...said, effect: null, why: 'shape' };
  if (change.seq <= began) return { ...said, effect, why: keepsRows ? 'in-rows' : 'began-later' };
  if (effect === null) return { ...said, effect, why: 'filter' };
  return { ...said, effect, why: change.seq <= cursor ? 'matched' : 'not-yet' };
}

function isAbout(channel: Channel, table: string | undefined): boolean {
  if (table === undefined) return false;
  if (channel instanceof FilteredChannel) return channel.words.table.name === table;
  return channel instanceof TablesChannel && (channel.tables === null || channel.tables.includes(table));
}

/** Null: none. `shape`: it cannot be told, the row's image is of another shape of the table. */
function effectOn(channel: Channel, change: Change): string | null {
  if (isBreak(change.action)) return null;
  if (!(channel instanceof FilteredChannel)) return 'told';
  try {
    return channel.effectOf(change);
  } catch (error) {
    if (error instanceof ImageError) return 'shape';
    throw error;
  }
}

/** What a channel is about, in words. */
export function wordsOf(channel: Channel): { table: string; filter: string | null; columns: string[] | null } {
  if (channel instanceof FilteredChannel) {
    const { table, filter, columns } = channel.words;
    return { table: table.name, filter: filter?.text ?? null, columns: columns && [...columns] };
  }
  const { tables } = channel as TablesChannel;
  return { table: tables?.join(', ') ?? 'every table', filter: null, columns: null };
}
