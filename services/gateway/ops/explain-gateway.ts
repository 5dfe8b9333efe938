/**
 * Explains what this gateway did with one change: whether it has the change, and how many of its
 * subscriptions the change concerns. For one client, also explains for each subscription whether the client
 * got the change, and if not, why. The gateway that serves the console requests this from all gateways over
 * the bus (explain.ts).
 */
import { z } from 'zod';
import { type Batch, BatchReader, isBreak } from '#shared/log/batch.ts';
import type { Catalog, Table } from '../catalog/catalog.ts';
import { Change } from '../channels/change.ts';
import type { Channel } from '../channels/channel.ts';
import type { Client } from '../clients/client.ts';
import type { Clients } from '../clients/clients.ts';
import { ImageError, type RowFilter } from '../filter/row-filter.ts';
import type { Cursor } from '../relay/cursor.ts';
import type { History } from '../relay/history.ts';
import type { Hub } from '../relay/hub.ts';
import type { Rights } from '../rights/rights.ts';

/** when this many subscriptions have been tested for one change, no more channels are tested */
const maxTested = 20_000;

export const question = z.object({
  epoch: z.number(),
  seq: z.number(),
  /** the id of one of this gateway's clients */
  client: z.number().optional(),
});
export type Question = z.infer<typeof question>;

const judged = z.object({
  /** what the subscription asked for */
  table: z.string(),
  filter: z.string().nullable(),
  columns: z.array(z.string()).nullable(),
  state: z.string(),
  /** the seq after which the subscription began */
  began: z.number(),
  /** all changes up to this seq have been sent to the subscription */
  cursor: z.number(),
  /** what the change does to the subscription's rows; null: nothing */
  effect: z.string().nullable(),
  why: z.enum(['matched', 'other-table', 'filter', 'began-later', 'in-rows', 'not-yet', 'shape']),
});
export type Judged = z.infer<typeof judged>;

/** The rights of the client to the table of the change, as they are now. */
const policy = z.object({
  /** why the table does not exist for the client; null: it exists */
  whyNot: z.string().nullable(),
  /** the role whose policy applies, and what it lets the client read; null: nothing */
  role: z.string().nullable(),
  filter: z.string().nullable(),
  /** whether it admits the row before or after the change; null: its sets are not loaded here, or there is no row */
  admits: z.boolean().nullable(),
});
export type Policy = z.infer<typeof policy>;

export const replicaAnswer = z.object({
  epoch: z.number(),
  seq: z.number(),
  mode: z.string(),
  /** the number of subscriptions to the table, of all clients, and how many of them the change concerns */
  subscriptions: z.number(),
  matched: z.number(),
  client: z
    .object({
      address: z.string(),
      mode: z.string(),
      queuedBytes: z.number(),
      subscriptions: z.array(judged),
      /** null: AUTH=off, or the table is unknown */
      policy: policy.nullable().default(null),
    })
    .nullable(),
});
export type ReplicaAnswer = z.infer<typeof replicaAnswer>;

export interface ExplainDeps {
  hub: Hub;
  history: History;
  catalog: Catalog;
  clients: Clients;
  rights: Rights;
  mode: () => string;
}

/** Rejects if the change cannot be read from memory, Redis or Postgres. */
export async function explainHere(asked: Question, deps: ExplainDeps): Promise<ReplicaAnswer> {
  const { hub, catalog, clients, rights } = deps;
  const client = asked.client === undefined ? undefined : clients.find(asked.client);
  const change = await findChange(asked, deps);
  const known = catalog.byId(change.relation);
  const table = known?.name;
  let subscriptions = 0;
  let matched = 0;
  for (const channel of hub.channels) {
    if (table === undefined || !channel.covers(table) || subscriptions > maxTested) continue;
    subscriptions += channel.members.size;
    if (effectOn(channel, change) !== null) matched += channel.members.size;
  }
  return {
    epoch: hub.epoch,
    seq: hub.seq,
    mode: deps.mode(),
    subscriptions,
    matched,
    client: client
      ? {
          ...judgeClient(client, change, table, hub.seq),
          policy: known ? policyOf(client, change, known, rights) : null,
        }
      : null,
  };
}

async function findChange({ epoch, seq }: Question, { hub, history }: ExplainDeps): Promise<Change> {
  const batches: readonly Batch[] = hub.recent(seq) ?? (await history.read(seq - 1, epoch));
  for (const batch of batches.map((each) => hub.readable(each))) {
    if (seq < batch.firstSeq || seq > batch.lastSeq) continue;
    const reader = new BatchReader(batch);
    while (reader.next()) if (reader.seq === seq) return new Change(reader);
  }
  throw new Error(`the change ${seq} was not found in memory, Redis or the log`);
}

function judgeClient(client: Client, change: Change, table: string | undefined, seq: number) {
  const { address, mode, outlet, cursors } = client;
  const subscriptions = cursors.map((cursor) => judge(cursor, change, table, seq));
  return { address, mode, queuedBytes: outlet.queuedBytes, subscriptions };
}

function policyOf({ viewer }: Client, change: Change, table: Table, rights: Rights): Policy | null {
  if (viewer === null) return null;
  const own = rights.of(table, viewer);
  if (own === null) return { whyNot: rights.whyNot(table, viewer), role: null, filter: null, admits: null };
  const { role, read } = own;
  return { whyNot: null, role, filter: read?.text ?? null, admits: read && admits(read, change) };
}

function admits(read: RowFilter, change: Change): boolean | null {
  if (isBreak(change.action) || read.sources.length > 0) return null;
  const { oldImage, newImage } = change;
  if (oldImage === null && newImage === null) return null;
  try {
    return (oldImage !== null && read.admits(change.oldRow!)) || (newImage !== null && read.admits(change.newRow!));
  } catch (error) {
    if (error instanceof ImageError) return null;
    throw error;
  }
}

function judge(place: Cursor, change: Change, table: string | undefined, seq: number): Judged {
  const { channel, state, began, keepsRows } = place;
  const cursor = state === 'live' ? seq : place.seq;
  const base = { ...channel.describe(), state, began, cursor };
  if (table === undefined || !channel.covers(table)) return { ...base, effect: null, why: 'other-table' };
  const effect = effectOn(channel, change);
  if (effect === 'shape') return { ...base, effect: null, why: 'shape' };
  if (change.seq <= began) return { ...base, effect, why: keepsRows ? 'in-rows' : 'began-later' };
  if (effect === null) return { ...base, effect, why: 'filter' };
  return { ...base, effect, why: change.seq <= cursor ? 'matched' : 'not-yet' };
}

/**
 * What the change does to the rows of a channel; null: nothing. Returns `shape` if the image does not
 * show this, because the image is from before the table was altered.
 */
function effectOn(channel: Channel, change: Change): string | null {
  if (isBreak(change.action)) return null;
  try {
    return channel.effectOf(change);
  } catch (error) {
    if (error instanceof ImageError) return 'shape';
    throw error;
  }
}
