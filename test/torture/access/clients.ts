// The clients of a run: users with roles, over every transport. Each keeps the rows that it was sent, and records every row and key that
// it was sent, with the claims that it had then. They share no code with Plank's SDK.

import { WebSocket } from 'ws';
import { hmacToken, now } from '../../support/stage/tokens.ts';
import type { Random } from '../random.ts';
import type { Claims, Row } from './policies.ts';

/** A row or a key that a client was sent. */
export interface Seen {
  who: string;
  claims: Claims;
  effect: string;
  id: unknown;
  data: Row | null | undefined;
  /** of a change */
  seq?: number;
  /** of a row of a snapshot: positions between which it was read */
  window?: { from: number; to: number };
  isPlain?: boolean;
}

export interface Account {
  who: string;
  claims: Claims;
  /** gives other claims from time to time */
  next?: (random: Random) => Claims;
}

export interface Deps {
  urls: () => string[];
  random: Random;
  seen: Seen[];
  problems: string[];
  counts: Record<string, number>;
}

const tokenOf = ({ sub, ...claims }: Claims) =>
  sub === undefined ? undefined : hmacToken({ sub, iat: now(), exp: now() + 600, ...claims });

const seqOf = (pos: string) => Number(pos.slice(pos.indexOf('.') + 1));

interface Frame {
  type: string;
  id?: unknown;
  ch?: string;
  pos?: string;
  reason?: string;
  resume_ch?: string;
  code?: string;
  message?: string;
  rows?: Row[];
  more?: boolean;
  effect?: string;
  action?: string;
  table?: string;
  data?: Row | null;
}

/** The rows of one subscription of plank.v1 or of an event stream, made of its frames. */
class Picture {
  rows = new Map<string, Row>();
  position: string | undefined;
  isLive = false;
  claims: Claims;
  readonly #who: string;
  readonly #deps: Deps;
  /** the highest seq of this connection: rows that are read now are not older */
  #passed = 0;
  /** rows of a snapshot that is not complete yet */
  #reading: Seen[] = [];

  constructor(who: string, claims: Claims, deps: Deps) {
    this.#who = who;
    this.claims = claims;
    this.#deps = deps;
  }

  /** A new connection, which begins with the rows or goes on. */
  connected(goesOn: boolean): void {
    this.#endReading();
    this.#passed = 0;
    this.isLive = false;
    if (!goesOn) this.rows.clear();
  }

  apply(frame: Frame): void {
    const { counts, seen } = this.#deps;
    counts[frame.type] = (counts[frame.type] ?? 0) + 1;
    if (frame.pos) this.#passed = Math.max(this.#passed, seqOf(frame.pos));
    switch (frame.type) {
      case 'rows':
        for (const row of frame.rows!) {
          this.rows.set(String(row.id), row);
          const window = { from: this.#passed, to: Number.POSITIVE_INFINITY };
          const one = { who: this.#who, claims: this.claims, effect: 'row', id: row.id, data: row, window };
          seen.push(one);
          this.#reading.push(one);
        }
        return;
      case 'live':
        this.#endReading(seqOf(frame.pos!));
        this.isLive = true;
        this.position = frame.pos;
        return;
      case 'pos':
        if (this.isLive) this.position = frame.pos;
        return;
      case 'resync':
        counts[`resync ${frame.reason}`] = (counts[`resync ${frame.reason}`] ?? 0) + 1;
        this.#endReading();
        this.isLive = false;
        this.position = undefined;
        this.rows.clear();
        return;
      case 'change':
        this.#change(frame);
    }
  }

  #change(frame: Frame): void {
    const key = String(frame.id);
    const { effect, id, data } = frame;
    this.#deps.seen.push({
      who: this.#who,
      claims: this.claims,
      effect: effect!,
      id,
      data,
      seq: seqOf(frame.pos!),
    });
    if (effect === 'remove') {
      if (!this.rows.delete(key)) this.#deps.problems.push(`${this.#who}: remove of ${key}, which it does not have`);
    } else this.rows.set(key, data!);
    if (this.isLive || this.position !== undefined) this.position = frame.pos;
  }

  #endReading(seq?: number): void {
    if (seq !== undefined) for (const one of this.#reading) one.window!.to = seq;
    this.#reading = [];
  }
}

export interface AccessClient {
  readonly who: string;
  /** null: it keeps no rows */
  readonly rows: ReadonlyMap<string, Row> | null;
  readonly claims: Claims;
  drop(): void;
  stop(): void;
}

/** plank.v1, with a snapshot; it resumes after a drop, and renews its token. */
export class SessionClient implements AccessClient {
  readonly who: string;
  readonly #account: Account;
  readonly #deps: Deps;
  readonly #picture: Picture;
  #claims: Claims;
  /** claims of an `auth` that is not answered yet */
  #renewing: Claims | undefined;
  #channel: string | undefined;
  #ws: WebSocket | undefined;
  #isOver = false;

  constructor(account: Account, deps: Deps) {
    this.who = `${account.who} over plank.v1`;
    this.#account = account;
    this.#claims = account.claims;
    this.#deps = deps;
    this.#picture = new Picture(this.who, account.claims, deps);
    this.#dial();
  }

  get rows(): ReadonlyMap<string, Row> {
    return this.#picture.rows;
  }

  get claims(): Claims {
    return this.#claims;
  }

  #dial(): void {
    const { random, urls, problems } = this.#deps;
    const ws = new WebSocket(`${random.pick(urls()).replace('http', 'ws')}/ws`, 'plank.v1');
    this.#ws = ws;
    const from = this.#picture.position;
    this.#picture.connected(from !== undefined);
    if (this.#renewing) this.#take(this.#renewing);
    if (this.#account.next && random.chance(0.3)) this.#take(this.#account.next(random));
    ws.on('error', () => {});
    ws.on('open', () => {
      const token = tokenOf(this.#claims);
      ws.send(JSON.stringify({ type: 'hello', ...(token === undefined ? {} : { token }) }));
    });
    ws.on('message', (data: Buffer) => {
      if (ws !== this.#ws) return;
      const frame = JSON.parse(data.toString()) as Frame;
      if (frame.type === 'welcome') {
        this.#picture.apply(frame);
        const resume = from === undefined ? {} : { from, ch: this.#channel };
        ws.send(JSON.stringify({ type: 'subscribe', id: 1, table: 'docs', snapshot: true, ...resume }));
      } else if (frame.type === 'ok' && frame.id === 1) this.#channel = frame.ch;
      else if (frame.type === 'ok') {
        this.#take(this.#renewing!);
        this.#renewing = undefined;
      } else if (frame.type === 'error') problems.push(`${this.who}: ${frame.code} ${frame.message}`);
      else this.#picture.apply(frame);
      if (frame.type === 'resync') this.#channel = frame.resume_ch ?? frame.ch;
    });
    ws.on('close', (code, reason) => {
      if (code >= 4400) problems.push(`${this.who}: closed with ${code} ${reason.toString()}`);
      if (!this.#isOver && ws === this.#ws) setTimeout(() => this.#isOver || this.#dial(), random.between(20, 200));
    });
  }

  #take(claims: Claims): void {
    this.#claims = claims;
    this.#picture.claims = claims;
  }

  drop(): void {
    const { random } = this.#deps;
    if (this.#account.next && this.#ws?.readyState === WebSocket.OPEN && !this.#renewing && random.chance(0.5)) {
      this.#renewing = this.#account.next(random);
      this.#ws.send(JSON.stringify({ type: 'auth', id: 2, token: tokenOf(this.#renewing) }));
    } else this.#ws?.terminate();
  }

  stop(): void {
    this.#isOver = true;
    this.#ws?.terminate();
  }
}

/** Plain mode, which has only changes. After a drop it goes on with `since`. */
export class PlainClient implements AccessClient {
  readonly who: string;
  readonly rows = null;
  readonly claims: Claims;
  readonly #deps: Deps;
  #ws: WebSocket | undefined;
  #position: string | undefined;
  #isOver = false;

  constructor({ who, claims }: Account, deps: Deps) {
    this.who = `${who} in plain mode`;
    this.claims = claims;
    this.#deps = deps;
    this.#dial();
  }

  #dial(): void {
    const { random, urls, seen, counts, problems } = this.#deps;
    const token = tokenOf(this.claims);
    const query = `?tables=docs${this.#position === undefined ? '' : `&since=${this.#position}`}`;
    const ws = new WebSocket(`${random.pick(urls()).replace('http', 'ws')}/ws${query}`, {
      headers: token === undefined ? {} : { authorization: `Bearer ${token}` },
    });
    this.#ws = ws;
    ws.on('error', () => {});
    ws.on('message', (data: Buffer) => {
      const { action, id, data: row, pos, table } = JSON.parse(data.toString()) as Frame;
      if (table !== 'docs') problems.push(`${this.who}: a change of ${table}`);
      counts.plain = (counts.plain ?? 0) + 1;
      this.#position = pos;
      seen.push({
        who: this.who,
        claims: this.claims,
        effect: action!,
        id,
        data: row,
        seq: seqOf(pos!),
        isPlain: true,
      });
    });
    ws.on('close', (code, reason) => {
      if (code === 1012 && reason.toString().includes('rights')) this.#position = undefined;
      if (code === 4410) this.#position = undefined;
      else if (code >= 4400) problems.push(`${this.who}: closed with ${code} ${reason.toString()}`);
      if (!this.#isOver) setTimeout(() => this.#isOver || this.#dial(), random.between(20, 200));
    });
  }

  drop(): void {
    this.#ws?.terminate();
  }

  stop(): void {
    this.#isOver = true;
    this.#ws?.terminate();
  }
}

/** An event stream with a snapshot, read by fetch. After a drop it sends the last event's id. */
export class EventsClient implements AccessClient {
  readonly who: string;
  readonly claims: Claims;
  readonly #deps: Deps;
  readonly #picture: Picture;
  #abort = new AbortController();
  #lastId: string | undefined;
  #isOver = false;

  constructor({ who, claims }: Account, deps: Deps) {
    this.who = `${who} over events`;
    this.claims = claims;
    this.#deps = deps;
    this.#picture = new Picture(this.who, claims, deps);
    void this.#run();
  }

  get rows(): ReadonlyMap<string, Row> {
    return this.#picture.rows;
  }

  async #run(): Promise<void> {
    const { random, urls, problems } = this.#deps;
    while (!this.#isOver) {
      this.#abort = new AbortController();
      const goesOn = this.#lastId !== undefined && this.#lastId !== 'anew';
      this.#picture.connected(goesOn);
      const token = tokenOf(this.claims);
      try {
        const response = await fetch(`${random.pick(urls())}/api/docs/changes?snapshot=true`, {
          headers: {
            ...(token === undefined ? {} : { authorization: `Bearer ${token}` }),
            ...(this.#lastId === undefined ? {} : { 'last-event-id': this.#lastId }),
          },
          signal: this.#abort.signal,
        });
        if (response.status >= 400 && response.status < 500) problems.push(`${this.who}: status ${response.status}`);
        else if (response.ok) await this.#read(response);
      } catch {
        // dropped, or the gateway is gone
      }
      await new Promise((resolve) => setTimeout(resolve, random.between(20, 200)));
    }
  }

  async #read(response: Response): Promise<void> {
    let text = '';
    for await (const chunk of response.body!.pipeThrough(new TextDecoderStream())) {
      text += chunk;
      for (let end = text.indexOf('\n\n'); end >= 0; end = text.indexOf('\n\n')) {
        this.#event(text.slice(0, end));
        text = text.slice(end + 2);
      }
    }
  }

  #event(text: string): void {
    let data = '';
    for (const line of text.split('\n')) {
      if (line.startsWith('id: ')) this.#lastId = line.slice(4);
      if (line.startsWith('data: ')) data = line.slice(6);
    }
    if (data !== '') this.#picture.apply(JSON.parse(data) as Frame);
  }

  drop(): void {
    this.#abort.abort();
  }

  stop(): void {
    this.#isOver = true;
    this.#abort.abort();
  }
}
