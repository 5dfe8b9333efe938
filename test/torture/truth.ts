// Owns the verdict on the changes that plain-mode clients got, from the ledger alone. What must stay true: each position is one committed
// change, each committed change has one position, and every client got its stretch of them whole.

import type { Seen } from './observed.ts';

export interface Entry {
  id: number;
  tx: number;
  tbl: string;
  action: string;
  key: string | null;
  was: number | null;
}

/** without `orders`, whose rows come and go with partitions without changes */
const strict = new Set(['accounts', 'things', 'totals']);

/** What is wrong, in words. Empty if nothing is. `seqs` are the positions that each client got, in the order of arrival. */
export function judge(
  ledger: readonly Entry[],
  bySeq: ReadonlyMap<number, Seen>,
  clients: readonly { name: string; seqs: readonly number[] }[],
): string[] {
  const problems: string[] = [];
  const order = [...bySeq.keys()].sort((a, b) => a - b);
  const txOf = againstLedger(ledger, bySeq, order, problems);
  perRow(bySeq, order, problems);
  together(order, txOf, problems);
  for (const client of clients) whole(client, order, problems);
  return problems;
}

function nameOf(table: string, action: string, key: string, ver: number): string {
  return action === 'TRUNCATE' ? `TRUNCATE ${table}` : `${action} ${table} ${key} ${ver}`;
}

/** Each change is in the ledger (none is invented or rolled back), and each entry of the ledger has come once. */
function againstLedger(
  ledger: readonly Entry[],
  bySeq: ReadonlyMap<number, Seen>,
  order: readonly number[],
  problems: string[],
): Map<number, number> {
  const left = new Map<string, Entry[]>();
  for (const entry of ledger) {
    const name = nameOf(entry.tbl, entry.action, entry.key ?? '', entry.action === 'DELETE' ? entry.was! : entry.id);
    const same = left.get(name);
    if (same) same.push(entry);
    else left.set(name, [entry]);
  }
  const txOf = new Map<number, number>();
  for (const seq of order) {
    const { table, action, key, ver } = bySeq.get(seq)!;
    const name = nameOf(table, action, key, ver);
    const entry = left.get(name)?.shift();
    if (entry) txOf.set(seq, entry.tx);
    else problems.push(`position ${seq}: ${name} did not commit, or came before`);
  }
  const lost = [...left].filter(([, entries]) => entries.length > 0).map(([name]) => name);
  if (lost.length > 0) problems.push(`${lost.length} changes came to nobody: ${lost.slice(0, 5).join('; ')}`);
  return txOf;
}

/** The changes of a row come in the order in which they were made. */
function perRow(bySeq: ReadonlyMap<number, Seen>, order: readonly number[], problems: string[]): void {
  const rows = new Map<string, number>();
  for (const seq of order) {
    const { table, action, key, ver } = bySeq.get(seq)!;
    const row = `${table} ${key}`;
    const before = rows.get(row);
    if (action === 'TRUNCATE') {
      for (const known of rows.keys()) if (known.startsWith(`${table} `)) rows.delete(known);
      continue;
    }
    if (action === 'DELETE') rows.delete(row);
    else rows.set(row, ver);
    if (!strict.has(table)) continue;
    const fits =
      action === 'INSERT'
        ? before === undefined
        : action === 'DELETE'
          ? before === ver
          : before !== undefined && ver > before;
    if (!fits) problems.push(`position ${seq}: ${action} of ${row} as ${ver}, which was ${before ?? 'not there'}`);
  }
}

/** A transaction's changes have positions one after the other. */
function together(order: readonly number[], txOf: ReadonlyMap<number, number>, problems: string[]): void {
  const ends = new Map<number, number>();
  for (const seq of order) {
    const tx = txOf.get(seq);
    if (tx === undefined) continue;
    const end = ends.get(tx);
    if (end !== undefined && end !== seq - 1) problems.push(`transaction ${tx} goes on at ${seq}, after ${end}`);
    ends.set(tx, seq);
  }
}

/** From its first change on, a client has got every change. */
function whole(
  { name, seqs }: { name: string; seqs: readonly number[] },
  order: readonly number[],
  problems: string[],
): void {
  if (seqs.length === 0) return;
  const from = order.indexOf(seqs[0]!);
  const expected = order.slice(from);
  for (const [i, seq] of expected.entries()) {
    if (seqs[i] === seq) continue;
    problems.push(
      `${name}: change ${i} is ${seqs[i] ?? 'missing'} instead of ${seq} (${seqs.length} of ${expected.length})`,
    );
    return;
  }
  if (seqs.length > expected.length) problems.push(`${name}: ${seqs.length} changes instead of ${expected.length}`);
}
