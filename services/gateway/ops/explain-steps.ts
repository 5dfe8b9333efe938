/** What a client's replica says of a change and that client, in words: matched or why not, written or what it waits for. */
import { actions, isBreak } from '#shared/log/batch.ts';
import type { Judged, ReplicaAnswer } from './explain-gateway.ts';

export interface Step {
  step: 'captured' | 'sequenced' | 'published' | 'received' | 'matched' | 'written';
  /** `no`: it ends here, and is meant to */
  state: 'done' | 'waiting' | 'no' | 'unknown';
  text: string;
  /** what it is said by */
  [field: string]: unknown;
}

/** The step that matters: that a client got it; else the first that says no, or that it is not there yet; else the last. */
export function endOf(steps: readonly Step[]): Step {
  const last = steps.at(-1)!;
  // another replica may be behind, or the stream be trimmed, all the same
  if (last.step === 'written' && last.state === 'done') return last;
  return steps.find(({ state }) => state === 'no' || state === 'waiting') ?? last;
}

const effects: Readonly<Record<string, string>> = {
  add: 'the row entered it',
  change: 'the row changed within it',
  remove: 'the row left it, so that only its key is told',
  told: 'plain mode tells all of a table',
};

/** `said`: what the replica answered, if it did. */
export function clientSteps(
  said: ReplicaAnswer | null | undefined,
  who: { node: { node: string }; id: number },
  change: { code: number; seq: number },
): Step[] {
  const { node } = who.node;
  if (!said) return [{ step: 'matched', state: 'unknown', text: `${node} could not say.` }];
  const { client } = said;
  if (!client) {
    const text = `${node} has no connection ${who.id}: it is gone. One that comes back goes on from its own position, under another number.`;
    return [{ step: 'matched', state: 'unknown', text }];
  }
  if (isBreak(change.code) || change.code === actions.canary)
    return [{ step: 'matched', state: 'no', text: 'It is no change of a row: no client gets it.' }];
  const fields = { address: client.address, mode: client.mode, subscriptions: client.subscriptions };
  const matching = client.subscriptions.filter(({ why }) => why === 'matched' || why === 'not-yet');
  if (matching.length === 0) return [{ step: 'matched', state: 'no', text: whyNot(client.subscriptions), ...fields }];
  const text = matching
    .map(
      (one) =>
        `Matched by its subscription to ${nameOf(one)}: ${effects[one.effect ?? 'told'] ?? one.effect}${columnsOf(one)}.`,
    )
    .join(' ');
  return [{ step: 'matched', state: 'done', text, ...fields }, written(matching, client.queuedBytes, change.seq)];
}

function written(matching: readonly Judged[], queuedBytes: number, seq: number): Step {
  const behind = matching.find(({ why }) => why === 'not-yet');
  if (behind) {
    const text = `Not written yet: it is catching up and has ${(seq - behind.cursor).toLocaleString('en')} changes to go, at the pace at which it reads. ${queued(queuedBytes)}`;
    return { step: 'written', state: 'waiting', text, cursor: behind.cursor, queuedBytes };
  }
  if (queuedBytes === 0)
    return { step: 'written', state: 'done', text: 'Written to its socket, and taken by the network.', queuedBytes };
  return { step: 'written', state: 'done', text: `Written to its socket. ${queued(queuedBytes)}`, queuedBytes };
}

function queued(bytes: number): string {
  return bytes === 0
    ? 'Nothing waits for it.'
    : `${bytes.toLocaleString('en')} bytes wait for it to read; the change may be among them.`;
}

/** Of several reasons, the one that came closest. */
function whyNot(subscriptions: readonly Judged[]): string {
  if (subscriptions.length === 0) return 'It has no subscription at the moment.';
  const with_ = (why: Judged['why']) => subscriptions.find((one) => one.why === why);
  const inRows = with_('in-rows');
  if (inRows)
    return `Its subscription to ${nameOf(inRows)} began with rows that hold this change already: it is not sent once more.`;
  const later = with_('began-later');
  if (later) return `Its subscription to ${nameOf(later)} began behind this change, at seq ${later.began}.`;
  const shape = with_('shape');
  if (shape)
    return `Its subscription to ${nameOf(shape)} cannot judge it: the row's image is of another shape of the table. It was told to begin anew (resync).`;
  const filter = with_('filter');
  if (filter)
    return `Its subscription to ${filter.table} admits neither what the row was nor what it became: ${filter.filter ?? 'there is neither'}.`;
  const tables = [...new Set(subscriptions.map(({ table }) => table))];
  return `It is not subscribed to this table, only to ${tables.join(', ')}.`;
}

const nameOf = ({ table, filter }: Judged) => (filter === null ? table : `${table} where ${filter}`);
const columnsOf = ({ columns }: Judged) => (columns ? ` (only ${columns.join(', ')} are sent)` : '');
