// The clients of a torture run. They share no code with Plank's SDK, except for SdkClient, which
// tries the SDK itself. What must stay true: each client connects and subscribes again by itself
// after a pause with jitter, as PROTOCOL.md says, and checks each frame.

import { WebSocket } from 'ws';
import { createPlank, type LiveQuery } from '#client/plank-client.ts';
import { keyText, type Observed, seqOf } from './observed.ts';
import { type Ask, Picture } from './picture.ts';
import type { Random } from './random.ts';

/**
 * Full jitter: the ceiling doubles with each failure, as in the SDK. It ends at 1 s, as all must
 * agree within seconds after the last fault.
 */
class Pauses {
  readonly #random: Random;
  #failures = 0;

  constructor(random: Random) {
    this.#random = random;
  }

  next(): number {
    return this.#random.next() * Math.min(1_000, 100 * 2 ** this.#failures++);
  }

  reset(): void {
    this.#failures = 0;
  }
}

/** What all clients can be asked at the end of a round. */
export interface TortureClient {
  readonly name: string;
  /** its rows by key, with what SQL gives the same; none where it keeps no rows */
  pictures(): { who: string; ask: Ask; rows: ReadonlyMap<string, number> }[];
  /** Ends its connection, as a network would; it comes back. */
  drop(): void;
  /** Reads nothing until `resume`. */
  pause(): void;
  resume(): void;
  stop(): void;
}

abstract class SocketClient implements TortureClient {
  readonly name: string;
  protected readonly observed: Observed;
  protected ws: WebSocket | undefined;
  readonly #pauses: Pauses;
  #retry: NodeJS.Timeout | undefined;
  #over = false;

  constructor(name: string, observed: Observed, random: Random) {
    this.name = name;
    this.observed = observed;
    this.#pauses = new Pauses(random);
  }

  protected abstract dial(): WebSocket;
  protected abstract opened(): void;
  protected abstract received(text: string): void;
  abstract pictures(): { who: string; ask: Ask; rows: ReadonlyMap<string, number> }[];

  get isOpen(): boolean {
    return this.ws?.readyState === WebSocket.OPEN;
  }

  start(): this {
    const ws = this.dial();
    this.ws = ws;
    let alive: NodeJS.Timeout | undefined;
    // finds a connection that is open and dead: the server pings each second here
    const sign = () => {
      clearTimeout(alive);
      alive = setTimeout(() => ws.isPaused || ws.terminate(), 6_000);
    };
    ws.on('error', () => {});
    ws.on('unexpected-response', (request) => {
      request.destroy();
      this.#again();
    });
    ws.on('open', () => {
      this.#pauses.reset();
      sign();
      this.opened();
    });
    ws.on('ping', sign);
    ws.on('message', (data: Buffer) => {
      sign();
      const text = data.toString();
      this.observed.text(this.name, text);
      this.received(text);
    });
    ws.on('close', (code, reason) => {
      clearTimeout(alive);
      if (this.#over || ws !== this.ws) return;
      if (code >= 4400 && code < 4500) this.observed.problem(`${this.name}: closed with ${code} ${reason.toString()}`);
      this.observed.reconnects++;
      this.#again();
    });
    return this;
  }

  #again(): void {
    if (this.#over) return;
    clearTimeout(this.#retry);
    this.#retry = setTimeout(() => this.start(), this.#pauses.next());
  }

  drop(): void {
    this.ws?.terminate();
  }

  pause(): void {
    if (this.ws?.readyState === WebSocket.OPEN) this.ws.pause();
  }

  resume(): void {
    if (this.ws?.isPaused) this.ws.resume();
  }

  stop(): void {
    this.#over = true;
    clearTimeout(this.#retry);
    this.ws?.terminate();
  }
}

/** The first users' client in plain mode: every table, and nothing but change frames. */
export class PlainClient extends SocketClient {
  /** in the order in which they came */
  readonly seqs: number[] = [];
  readonly #url: string;
  /** of `accounts`: version by key; complete only for a client that was there from the start */
  readonly #rows = new Map<string, number>();
  #pos: string | undefined;

  constructor(url: string, name: string, observed: Observed, random: Random) {
    super(name, observed, random);
    this.#url = url;
  }

  protected override dial(): WebSocket {
    const url = new URL(this.#url);
    if (this.#pos !== undefined) url.searchParams.set('since', this.#pos);
    return new WebSocket(url, { perMessageDeflate: false, handshakeTimeout: 5_000 });
  }

  protected override opened(): void {}

  protected override received(text: string): void {
    const { table, action, id, data, pos } = JSON.parse(text) as {
      table: string;
      action: string;
      id: unknown;
      data: Record<string, unknown> | null;
      pos: string;
    };
    const seq = seqOf(pos);
    const key = keyText(id);
    const ver = Number(data?.['ver'] ?? 0);
    if (seq <= (this.seqs.at(-1) ?? 0)) this.observed.problem(`${this.name}: ${pos} came after ${this.#pos}`);
    this.#pos = pos;
    this.seqs.push(seq);
    this.observed.whole(this.name, seq, { table, action, key, ver });
    if (table !== 'accounts') return;
    if (action === 'DELETE') this.#rows.delete(key);
    else this.#rows.set(key, ver);
  }

  override pictures() {
    return [
      {
        who: this.name,
        ask: { table: 'accounts', sql: 'select id::text as key, ver from accounts' },
        rows: this.#rows,
      },
    ];
  }
}

/** plank.v1, several subscriptions on one connection. */
export class FramesClient extends SocketClient {
  readonly #url: string;
  readonly #pictures: Picture[];
  readonly #pauses: Map<Picture, Pauses>;
  readonly #byChannel = new Map<string, Picture>();
  readonly #asked = new Map<number, Picture>();
  #requests = 0;

  constructor(url: string, name: string, asks: Ask[], observed: Observed, random: Random) {
    super(name, observed, random);
    this.#url = url;
    this.#pictures = asks.map((ask) => new Picture(name, ask, observed));
    this.#pauses = new Map(this.#pictures.map((picture) => [picture, new Pauses(random)]));
  }

  protected override dial(): WebSocket {
    return new WebSocket(this.#url, 'plank.v1', { perMessageDeflate: false, handshakeTimeout: 5_000 });
  }

  protected override opened(): void {
    this.#byChannel.clear();
    this.#asked.clear();
    this.ws!.send(JSON.stringify({ type: 'hello' }));
    for (const picture of this.#pictures) this.#subscribe(picture);
  }

  #subscribe(picture: Picture): void {
    const { table, where, columns } = picture.ask;
    if (picture.position === undefined) picture.clear();
    picture.live = false;
    const id = ++this.#requests;
    this.#asked.set(id, picture);
    this.ws!.send(
      JSON.stringify({ type: 'subscribe', id, table, where, columns, snapshot: true, from: picture.position }),
    );
  }

  protected override received(text: string): void {
    const frame = JSON.parse(text) as { type: string; ch?: string; id?: number; code?: string; message?: string };
    if (frame.type === 'ok') {
      const picture = this.#asked.get(frame.id!);
      this.#asked.delete(frame.id!);
      if (picture) this.#byChannel.set(frame.ch!, picture);
    } else if (frame.type === 'error') {
      const picture = frame.id === undefined ? this.#byChannel.get(frame.ch!) : this.#asked.get(frame.id);
      if (frame.code !== 'UNAVAILABLE')
        this.observed.problem(`${picture?.who ?? this.name}: ${frame.code} ${frame.message}`);
      picture?.clear();
      if (picture) this.#subscribeLater(picture);
    } else if (frame.type === 'pos') {
      for (const picture of this.#pictures) picture.apply(frame);
    } else if (frame.ch !== undefined) {
      const picture = this.#byChannel.get(frame.ch);
      picture?.apply(frame);
      if (picture && frame.type === 'live') this.#pauses.get(picture)!.reset();
    }
  }

  /** On this connection: the next one subscribes to everything at once. */
  #subscribeLater(picture: Picture): void {
    const { ws } = this;
    const isCurrent = () => ws === this.ws && ws?.readyState === WebSocket.OPEN;
    setTimeout(() => isCurrent() && this.#subscribe(picture), this.#pauses.get(picture)!.next());
  }

  override pictures() {
    return this.#pictures.map(({ who, ask, rows }) => ({ who, ask, rows }));
  }
}

/** An event stream, read as EventSource does. */
export class EventsClient implements TortureClient {
  readonly name: string;
  readonly #url: string;
  readonly #picture: Picture;
  readonly #observed: Observed;
  readonly #pauses: Pauses;
  readonly #over = new AbortController();
  #drop = new AbortController();
  #lastId: string | undefined;

  constructor(url: string, name: string, ask: Ask, observed: Observed, random: Random) {
    this.name = name;
    this.#url = url;
    this.#picture = new Picture(name, ask, observed);
    this.#observed = observed;
    this.#pauses = new Pauses(random);
  }

  start(): this {
    void this.#run();
    return this;
  }

  async #run(): Promise<void> {
    while (!this.#over.signal.aborted) {
      this.#drop = new AbortController();
      await this.#read(AbortSignal.any([this.#over.signal, this.#drop.signal])).catch(() => {});
      this.#observed.reconnects++;
      await new Promise((resolve) => setTimeout(resolve, this.#pauses.next()));
    }
  }

  async #read(signal: AbortSignal): Promise<void> {
    const { table, where } = this.#picture.ask;
    const query = new URLSearchParams({ snapshot: 'true', ...(where ? { where: JSON.stringify(where) } : {}) });
    const headers: Record<string, string> = this.#lastId === undefined ? {} : { 'Last-Event-ID': this.#lastId };
    const response = await fetch(`${this.#url}/api/${table}/changes?${query}`, { signal, headers });
    if (!response.ok) throw new Error(`${response.status}`);
    if (this.#lastId === undefined || this.#lastId === 'anew') this.#picture.clear();
    const decoder = new TextDecoder();
    let text = '';
    let alive = setTimeout(() => this.#drop.abort(), 20_000);
    for await (const chunk of response.body!) {
      clearTimeout(alive);
      alive = setTimeout(() => this.#drop.abort(), 20_000);
      text += decoder.decode(chunk, { stream: true });
      const events = text.split('\n\n');
      text = events.pop()!;
      for (const event of events) this.#take(event);
    }
  }

  #take(event: string): void {
    const lines = event.split('\n');
    const data = lines
      .filter((line) => line.startsWith('data: '))
      .map((line) => line.slice(6))
      .join('\n');
    if (data === '') return;
    this.#observed.text(this.name, data);
    const id = lines.find((line) => line.startsWith('id: '))?.slice(4);
    if (id !== undefined) this.#lastId = id;
    const frame = JSON.parse(data) as { type: string; code?: string };
    if (frame.type === 'error' && frame.code !== 'UNAVAILABLE') this.#observed.problem(`${this.#picture.who}: ${data}`);
    if (frame.type === 'live') this.#pauses.reset();
    // a client goes on by the event's id alone, never by the frame's `pos`
    this.#picture.apply(frame);
    this.#picture.position = id === undefined || id === 'anew' || id === 'end' ? undefined : id;
  }

  pictures() {
    const { who, ask, rows } = this.#picture;
    return [{ who, ask, rows }];
  }

  drop(): void {
    this.#drop.abort();
  }

  pause(): void {}

  resume(): void {}

  stop(): void {
    this.#over.abort();
  }
}

/** Plank's own SDK. */
export class SdkClient implements TortureClient {
  readonly name: string;
  readonly #plank: ReturnType<typeof createPlank>;
  readonly #live: { ask: Ask; query: LiveQuery<Record<string, unknown>> }[];

  constructor(url: string, name: string, asks: Ask[], observed: Observed) {
    this.name = name;
    this.#plank = createPlank({ url, onError: () => {} });
    this.#live = asks.map((ask) => {
      const options = { ...(ask.where ? { where: ask.where } : {}), ...(ask.columns ? { columns: ask.columns } : {}) };
      const query = this.#plank.table<Record<string, unknown>>(ask.table).live(options as { columns: string[] }, () => {
        if (query?.error) observed.problem(`${name}: ${query.error.message}`);
      });
      return { ask, query };
    });
  }

  pictures() {
    return this.#live.map(({ ask, query }) => ({
      who: `${this.name} (${ask.sql})`,
      ask,
      rows: new Map([...query.rows.values()].map((row) => [keyOfRow(ask, row), Number(row['ver'])])),
    }));
  }

  drop(): void {}

  pause(): void {}

  resume(): void {}

  stop(): void {
    this.#plank.close();
  }
}

function keyOfRow(ask: Ask, row: Record<string, unknown>): string {
  if (ask.table === 'orders') return keyText({ region: row['region'], id: row['id'] });
  return String(ask.table === 'totals' ? row['owner'] : row['id']);
}
