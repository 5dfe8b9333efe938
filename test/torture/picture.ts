// Owns the rows of one subscription of plank.v1, made of its frames by PROTOCOL.md alone. What must stay true: every change fits the rows
// before it; one that does not is in `problems`.

import { keyText, type Observed, seqOf } from './observed.ts';

export interface Ask {
  table: string;
  where?: object;
  columns?: string[];
  /** the same rows, as SQL */
  sql: string;
}

interface Frame {
  type: string;
  rows?: Record<string, unknown>[];
  more?: boolean;
  pos?: string;
  effect?: string;
  action?: string;
  id?: unknown;
  data?: Record<string, unknown>;
  tx?: string;
}

export class Picture {
  /** version by key */
  readonly rows = new Map<string, number>();
  readonly ask: Ask;
  readonly who: string;
  /** the position to resume from; undefined: it must begin with the rows */
  position: string | undefined;
  live = false;
  #isReading = true;
  readonly #observed: Observed;

  constructor(who: string, ask: Ask, observed: Observed) {
    this.who = `${who} (${ask.sql})`;
    this.ask = ask;
    this.#observed = observed;
  }

  /** Begins again, on a connection without a position. */
  clear(): void {
    this.rows.clear();
    this.position = undefined;
    this.live = false;
    this.#isReading = true;
  }

  apply(frame: Frame): void {
    if (frame.type === 'rows') this.#take(frame);
    else if (frame.type === 'change') this.#change(frame);
    else if (frame.type === 'live') this.#liven(frame.pos!);
    else if (frame.type === 'pos' && this.live) this.#move(frame.pos!);
    else if (frame.type === 'resync') {
      this.#observed.resyncs++;
      this.clear();
    }
  }

  #take({ rows, more }: Frame): void {
    if (!this.#isReading) this.#problem('rows came without a resync before them');
    for (const row of rows!) {
      const key = this.#keyOf(row);
      if (this.rows.has(key)) this.#problem(`the snapshot has ${key} twice`);
      this.rows.set(key, Number(row['ver']));
    }
    if (!more) this.#isReading = false;
  }

  #change({ effect, action, id, data, pos, type }: Frame): void {
    this.#observed.deliveries++;
    if (this.#isReading) this.#problem(`a ${type} came before the rows were there`);
    if (this.position !== undefined && seqOf(pos!) <= seqOf(this.position))
      this.#problem(`${pos} came after ${this.position}`);
    if (this.position !== undefined || this.live) this.position = pos!;
    if (action === 'TRUNCATE') return this.rows.clear();
    const key = keyText(id);
    const ver = Number(data?.['ver'] ?? 0);
    const before = this.rows.get(key);
    if (effect === 'add' ? before !== undefined : before === undefined)
      this.#problem(
        `${effect} of ${key} at ${pos}, which is ${before === undefined ? 'not there' : `there as ${before}`}`,
      );
    if (before !== undefined && effect === 'change' && ver <= before)
      this.#problem(`${key} went back from ${before} to ${ver} at ${pos}`);
    if (effect === 'remove') this.rows.delete(key);
    else this.rows.set(key, ver);
  }

  #liven(pos: string): void {
    if (this.#isReading) this.#problem('it went live before the rows were there');
    this.live = true;
    this.#move(pos);
  }

  #move(pos: string): void {
    if (this.position === undefined || seqOf(pos) > seqOf(this.position)) this.position = pos;
  }

  #keyOf(row: Record<string, unknown>): string {
    if (this.ask.table === 'orders') return keyText({ region: row['region'], id: row['id'] });
    return String(this.ask.table === 'totals' ? row['owner'] : row['id']);
  }

  #problem(text: string): void {
    this.#observed.problem(`${this.who}: ${text}`);
  }
}
