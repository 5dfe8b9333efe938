// Judges everything that clients were sent, by the log and by the policies as code. A row is allowed at a position if the policy admitted
// it when its transaction had taken effect as a whole.

import { isDeepStrictEqual } from 'node:util';
import type { Seen } from './clients.ts';
import { editorPolicies, policies, type Row } from './policies.ts';
import type { DocChange, Transaction } from './replay.ts';

export function policyOf(role: string | undefined, editor: number) {
  if (role === 'editor') return editorPolicies[editor] ?? policies.anonymous!;
  return (role !== undefined && policies[role]) || policies.anonymous!;
}

const project = (row: Row, columns: readonly string[]): Row =>
  Object.fromEntries(Object.entries(row).filter(([name]) => columns.includes(name)));

/** One line for each row or key that a client must not have been sent. */
export function check(transactions: readonly Transaction[], seen: readonly Seen[]): string[] {
  const bySeq = new Map<number, { transaction: Transaction; change: DocChange }>();
  for (const transaction of transactions)
    for (const change of transaction.changes) bySeq.set(change.seq, { transaction, change });
  return seen.flatMap((one) => {
    const wrong = one.window ? wrongRow(transactions, one) : wrongChange(bySeq, one);
    return wrong === null ? [] : [`${one.who} (${JSON.stringify(one.claims)}): ${wrong}: ${JSON.stringify(one)}`];
  });
}

function wrongChange(bySeq: Map<number, { transaction: Transaction; change: DocChange }>, one: Seen): string | null {
  const found = bySeq.get(one.seq!);
  if (!found) return 'a change that is not in the log';
  const { transaction, change } = found;
  const { before, after, editorBefore, editorAfter } = transaction;
  const was = policyOf(one.claims.role, editorBefore);
  const is = policyOf(one.claims.role, editorAfter);
  if (JSON.stringify(one.id) !== change.key) return `another key than ${change.key}`;
  const isVisibleBefore = change.old !== null && was.admits(change.old, before, one.claims);
  const isVisibleAfter = change.new !== null && is.admits(change.new, after, one.claims);
  const effect = isVisibleAfter ? (isVisibleBefore ? 'change' : 'add') : isVisibleBefore ? 'remove' : 'nothing';
  const plain = { change: 'UPDATE', add: 'INSERT', remove: 'DELETE', nothing: 'nothing' }[effect];
  if (one.effect !== (one.isPlain ? plain : effect)) return `it should have been ${effect}`;
  if (effect === 'change' && isDeepStrictEqual(project(change.old!, was.columns), project(change.new!, is.columns)))
    return 'it shows that a hidden column has changed';
  if (effect === 'remove')
    return one.isPlain
      ? isDeepStrictEqual(one.data, project(change.old!, was.columns))
        ? null
        : 'other columns than the old row that was visible'
      : one.data === undefined
        ? null
        : 'a row where only a key may be';
  return isDeepStrictEqual(one.data, project(change.new!, is.columns)) ? null : 'other columns or values than allowed';
}

/** A row of a snapshot: the image was there, and allowed, somewhere between two positions. */
function wrongRow(transactions: readonly Transaction[], { id, data, claims, window }: Seen): string | null {
  const { from, to } = window!;
  let isKnown = false;
  const inWindow = transactions.filter(({ first, last }) => last >= from && first <= to);
  // the state at `from` is that before the first transaction that ends later
  const states = inWindow.flatMap(({ before, after, editorBefore, editorAfter }) => [
    { state: before, editor: editorBefore },
    { state: after, editor: editorAfter },
  ]);
  const last = transactions.at(-1);
  if (states.length === 0 && last) states.push({ state: last.after, editor: last.editorAfter });
  for (const { state } of states) {
    const row = state.docs.get(JSON.stringify([id]));
    if (!row) continue;
    for (const { state: sets, editor } of states) {
      const policy = policyOf(claims.role, editor);
      if (!isDeepStrictEqual(data, project(row, policy.columns))) continue;
      isKnown = true;
      if (policy.admits(row, sets, claims)) return null;
    }
  }
  return isKnown ? 'a row that was not allowed at any position of the snapshot' : 'a row that never looked so';
}
