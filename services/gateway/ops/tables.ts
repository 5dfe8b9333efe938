/**
 * Operators' data as tables over plank.v1: a changing set of rows becomes a channel, so that the console uses the SDK as any page
 * does. Nothing is kept of the past: whoever comes back is told `resync` and gets the rows anew.
 */
import type { RawData, WebSocket } from 'ws';
import {
  type ChangeFrame,
  closeCodes,
  type ErrorFrame,
  formatPosition,
  type Row,
  type ServerFrame,
} from '#shared/wire.ts';
import { parseClientMessage } from '../clients/messages.ts';

const helloTimeoutMs = 5_000;
const pingMs = 25_000;
/** a page that takes nothing is closed when so much waits for it */
const maxQueueBytes = 4 * 1024 * 1024;
/** as a database's: no position of one process is taken for another's */
const epoch = Math.floor(Date.now() / 1_000) - 1_750_000_000;

/** The rows of one table, by the value of one column. */
export class LiveTable {
  readonly name: string;
  /** the column that names a row */
  readonly key: string;
  readonly #rows = new Map<unknown, { row: Row; text: string }>();
  readonly #members = new Set<(frames: readonly ChangeFrame[]) => void>();
  readonly #onWatched: () => void;
  #seq = 0;
  #turn = 0;

  /** `onWatched`: somebody looks at it who did not before. */
  constructor(name: string, key: string, onWatched: () => void = () => {}) {
    this.name = name;
    this.key = key;
    this.#onWatched = onWatched;
  }

  get isWatched(): boolean {
    return this.#members.size > 0;
  }

  get rows(): Row[] {
    return Array.from(this.#rows.values(), ({ row }) => row);
  }

  get position(): string {
    return formatPosition({ epoch, seq: this.#seq });
  }

  /** What the rows are now. Members are told what is different, as one transaction. */
  set(rows: readonly Row[]): void {
    const frames: ChangeFrame[] = [];
    const gone = new Set(this.#rows.keys());
    const tx = String(++this.#turn);
    const say = (effect: ChangeFrame['effect'], action: ChangeFrame['action'], id: unknown, data?: Row) => {
      const pos = formatPosition({ epoch, seq: ++this.#seq });
      const change = { type: 'change', ch: this.name, effect, table: this.name, action, id, pos, tx } as const;
      frames.push(data === undefined ? change : { ...change, data });
    };
    for (const row of rows) {
      const id = row[this.key];
      const text = JSON.stringify(row);
      const known = this.#rows.get(id);
      gone.delete(id);
      if (known?.text === text) continue;
      this.#rows.set(id, { row, text });
      if (known) say('change', 'UPDATE', id, row);
      else say('add', 'INSERT', id, row);
    }
    for (const id of gone) {
      this.#rows.delete(id);
      say('remove', 'DELETE', id);
    }
    const last = frames.at(-1);
    if (!last) return;
    last.last = true;
    for (const member of this.#members) member(frames);
  }

  /** Calls back with what changes from now on; the answer ends that. */
  watch(member: (frames: readonly ChangeFrame[]) => void): () => void {
    this.#members.add(member);
    this.#onWatched();
    return () => void this.#members.delete(member);
  }
}

/** Says on a WebSocket of operators what the page asks for, until it closes. */
export function serveTables(ws: WebSocket, tables: ReadonlyMap<string, LiveTable>, node: string): void {
  const session = new OpsSession(ws, tables, node);
  ws.on('message', (message: RawData) => session.receive((message as Buffer).toString()));
}

class OpsSession {
  readonly #ws: WebSocket;
  readonly #tables: ReadonlyMap<string, LiveTable>;
  readonly #node: string;
  readonly #subscriptions = new Map<string, () => void>();
  readonly #ping: NodeJS.Timeout;
  #hello: NodeJS.Timeout | undefined;
  #alive = true;

  constructor(ws: WebSocket, tables: ReadonlyMap<string, LiveTable>, node: string) {
    this.#ws = ws;
    this.#tables = tables;
    this.#node = node;
    this.#hello = setTimeout(() => ws.close(closeCodes.noHello, 'no hello came in time'), helloTimeoutMs);
    this.#ping = setInterval(() => this.#check(), pingMs);
    ws.on('pong', () => {
      this.#alive = true;
    });
    ws.once('close', () => {
      clearTimeout(this.#hello);
      clearInterval(this.#ping);
      for (const end of this.#subscriptions.values()) end();
    });
  }

  #check(): void {
    if (!this.#alive) return this.#ws.terminate();
    this.#alive = false;
    this.#ws.ping();
  }

  receive(text: string): void {
    this.#alive = true;
    const message = parseClientMessage(text);
    if ('error' in message) return this.#ws.close(closeCodes.malformed, message.error.slice(0, 100));
    if ((this.#hello !== undefined) !== (message.type === 'hello'))
      return this.#ws.close(closeCodes.malformed, 'hello comes first, and once');
    switch (message.type) {
      case 'hello':
        clearTimeout(this.#hello);
        this.#hello = undefined;
        return this.#send({
          type: 'welcome',
          node: this.#node,
          ping_ms: pingMs,
          pos: formatPosition({ epoch, seq: 0 }),
        });
      case 'ping':
        return this.#send({ type: 'pong' });
      case 'unsubscribe': {
        const { id, ch } = message;
        const end = this.#subscriptions.get(ch);
        if (!end) return this.#refuse(id, 'UNKNOWN_CHANNEL', `no subscription to ${JSON.stringify(ch)}`);
        end();
        this.#subscriptions.delete(ch);
        return this.#send({ type: 'ok', id });
      }
      case 'subscribe': {
        const { id, table: name, snapshot, from } = message;
        const table = this.#tables.get(name);
        if (!table) return this.#refuse(id, 'UNKNOWN_TABLE', `there is no table ${JSON.stringify(name)} for operators`);
        if (Object.keys(message.where ?? {}).length > 0 || message.columns)
          return this.#refuse(id, 'INVALID_FILTER', 'tables of operators come as a whole');
        if (this.#subscriptions.has(name))
          return this.#refuse(id, 'ALREADY_SUBSCRIBED', `already subscribed to ${name}`, name);
        this.#send({ type: 'ok', id, ch: name, key: [table.key] });
        if (from !== undefined) this.#send({ type: 'resync', ch: name, reason: 'retention' });
        this.#subscriptions.set(
          name,
          table.watch((frames) => {
            for (const frame of frames) this.#send(frame);
          }),
        );
        if (snapshot) this.#send({ type: 'rows', ch: name, rows: table.rows, more: false });
        return this.#send({ type: 'live', ch: name, pos: table.position });
      }
    }
  }

  /** `ch`: of the subscription that is there already. */
  #refuse(id: number, code: ErrorFrame['code'], message: string, ch?: string): void {
    this.#send({ type: 'error', id, ...(ch === undefined ? {} : { ch }), code, message, retry: false });
  }

  #send(frame: ServerFrame): void {
    if (this.#ws.readyState !== this.#ws.OPEN) return;
    if (this.#ws.bufferedAmount > maxQueueBytes)
      return this.#ws.close(closeCodes.tooSlow, 'too much waits for this page');
    this.#ws.send(JSON.stringify(frame));
  }
}
