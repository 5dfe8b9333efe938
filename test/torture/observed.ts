// Owns the changes that clients received, by position. What must stay true: a position means the same change to every client.

import { secretMark } from './schema.ts';

export interface Seen {
  table: string;
  action: string;
  key: string;
  /** of an INSERT or UPDATE the row's new version, of a DELETE its last one; 0 of a TRUNCATE */
  ver: number;
}

const most = 30;

export class Observed {
  readonly bySeq = new Map<number, Seen>();
  readonly problems: string[] = [];
  /** deliveries that were checked, of all clients */
  deliveries = 0;
  resyncs = 0;
  reconnects = 0;
  /** the column is excluded, and every gateway has had time to read that */
  isSecret = false;

  problem(text: string): void {
    if (this.problems.length < most) this.problems.push(text);
  }

  /** A change that a plain-mode client got, with the whole row. */
  whole(who: string, seq: number, seen: Seen): void {
    this.deliveries++;
    const known = this.bySeq.get(seq);
    if (!known) this.bySeq.set(seq, seen);
    else if (
      known.table !== seen.table ||
      known.action !== seen.action ||
      known.key !== seen.key ||
      known.ver !== seen.ver
    )
      this.problem(`${who}: position ${seq} is ${JSON.stringify(seen)}, and ${JSON.stringify(known)} to others`);
  }

  /** Text that was sent to a client. */
  text(who: string, text: string): void {
    if (this.isSecret && text.includes(secretMark))
      this.problem(`${who}: got an excluded column: ${text.slice(0, 200)}`);
  }
}

export function seqOf(pos: string): number {
  return Number(pos.slice(pos.indexOf('.') + 1));
}

/** A key in the ledger's form. */
export function keyText(id: unknown): string {
  if (typeof id !== 'object' || id === null) return String(id);
  const { region, id: own } = id as { region: number; id: number };
  return `${region}/${own}`;
}
