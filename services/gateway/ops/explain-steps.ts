/**
 * The last two steps of an explained change, as sentences. `matched`: which subscription of the client
 * admits the change, or why none does. `written`: whether the change was written to the client, or what the
 * change waits for.
 */
import { actions, isBreak } from '#shared/log/batch.ts';
import type { Judged, Policy, ReplicaAnswer } from './explain-gateway.ts';

export interface Step {
  step: 'captured' | 'sequenced' | 'published' | 'received' | 'matched' | 'written';
  /** `no`: the change ends at this step, as it should */
  state: 'done' | 'waiting' | 'no' | 'unknown';
  text: string;
  /** the facts behind the text */
  [field: string]: unknown;
}

/**
 * The step that tells the outcome. If the client got the change, this is the last step; else the first step
 * that is `no` or `waiting`; if there is none, the last step.
 */
export function endOf(steps: readonly Step[]): Step {
  const last = steps.at(-1)!;
  // the client got the change, even if an earlier step is not done, for example because another replica
  // lags or the stream was trimmed
  if (last.step === 'written' && last.state === 'done') return last;
  return steps.find(({ state }) => state === 'no' || state === 'waiting') ?? last;
}

const effects: Readonly<Record<string, string>> = {
  add: 'the row entered it',
  change: 'the row changed within it',
  remove: 'the row left it, so that only its key is sent',
  sent: 'plain mode sends all changes of a table',
};

/**
 * The last steps for one client. `answer` comes from the client's gateway; null or undefined if it did not
 * answer.
 */
export function clientSteps(
  answer: ReplicaAnswer | null | undefined,
  who: { node: { node: string }; id: number },
  change: { code: number; seq: number },
): Step[] {
  const { node } = who.node;
  if (!answer) return [{ step: 'matched', state: 'unknown', text: `${node} gave no answer.` }];
  const { client } = answer;
  if (!client) {
    const text =
      `${node} has no connection ${who.id}: it is gone. ` +
      'A client that reconnects resumes from its own position, under another number.';
    return [{ step: 'matched', state: 'unknown', text }];
  }
  if (isBreak(change.code) || change.code === actions.canary)
    return [{ step: 'matched', state: 'no', text: 'It is no change of a row: no client gets it.' }];
  const { address, mode, policy, subscriptions } = client;
  const fields = { address, mode, subscriptions, ...(policy ? { policy } : {}) };
  const matching = client.subscriptions.filter(({ why }) => why === 'matched' || why === 'not-yet');
  if (matching.length === 0) {
    const text = refusal(policy) ?? [whyNot(subscriptions), policyText(policy)].filter(Boolean).join(' ');
    return [{ step: 'matched', state: 'no', text, ...fields }];
  }
  const text = matching
    .map(
      (one) =>
        `Matched by its subscription to ${nameOf(one)}: ${effects[one.effect ?? 'sent'] ?? one.effect}${columnsOf(one)}.`,
    )
    .join(' ');
  return [{ step: 'matched', state: 'done', text, ...fields }, written(matching, client.queuedBytes, change.seq)];
}

/** Why the policy that applies now does not admit the change; null: it does, or this is not known. */
function refusal(policy: Policy | null): string | null {
  if (policy === null) return null;
  if (policy.whyNot !== null) return `For this client, the table looks as if it did not exist: ${policy.whyNot}.`;
  if (policy.filter === null) return `The policy of the role ${policy.role} lets the client read no row.`;
  if (policy.admits !== false) return null;
  const policyOf = `The policy of the role ${policy.role} (${policy.filter})`;
  return `${policyOf} admits the row neither before nor after the change.`;
}

const policyText = (policy: Policy | null) =>
  policy && `The policy of the role ${policy.role} lets the client read: ${policy.filter}.`;

function written(matching: readonly Judged[], queuedBytes: number, seq: number): Step {
  const behind = matching.find(({ why }) => why === 'not-yet');
  if (behind) {
    const missing = (seq - behind.cursor).toLocaleString('en');
    const text =
      `Not written yet: it is catching up and has ${missing} changes to go, at the pace at which it reads. ` +
      queued(queuedBytes);
    return { step: 'written', state: 'waiting', text, cursor: behind.cursor, queuedBytes };
  }
  if (queuedBytes === 0)
    return { step: 'written', state: 'done', text: 'Written to its socket and passed on to the network.', queuedBytes };
  return { step: 'written', state: 'done', text: `Written to its socket. ${queued(queuedBytes)}`, queuedBytes };
}

function queued(bytes: number): string {
  return bytes === 0
    ? 'Its send buffer is empty.'
    : `${bytes.toLocaleString('en')} bytes wait in its send buffer; the change may be among them.`;
}

/** Why no subscription matched: the reason of the subscription that came closest to a match. */
function whyNot(subscriptions: readonly Judged[]): string {
  if (subscriptions.length === 0) return 'It has no subscription at the moment.';
  const with_ = (why: Judged['why']) => subscriptions.find((one) => one.why === why);
  const inRows = with_('in-rows');
  if (inRows)
    return `Its subscription to ${nameOf(inRows)} began with rows that hold this change already: it is not sent again.`;
  const later = with_('began-later');
  if (later) return `Its subscription to ${nameOf(later)} began after this change, at seq ${later.began}.`;
  const shape = with_('shape');
  if (shape)
    return (
      `Its subscription to ${nameOf(shape)} cannot be tested: the row's image is from before the table was altered. ` +
      'The client was sent a resync, and reads its rows again.'
    );
  const filter = with_('filter');
  if (filter)
    return (
      `Its subscription to ${filter.table} admits the row neither before nor after the change: ` +
      `${filter.filter ?? 'the change has no row'}.`
    );
  const tables = [...new Set(subscriptions.map(({ table }) => table))];
  return `It is not subscribed to this table, only to ${tables.join(', ')}.`;
}

const nameOf = ({ table, filter }: Judged) => (filter === null ? table : `${table} where ${filter}`);
const columnsOf = ({ columns }: Judged) => (columns ? ` (only ${columns.join(', ')} are sent)` : '');
