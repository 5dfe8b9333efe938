// Owns clients with tokens, over each path on which changes reach clients, for tests of what a viewer may see. What must stay true:
// every text that the server sent is kept as it came.

import { WebSocket } from 'ws';
import { until } from '../wait.ts';
import type { Stage } from './stage.ts';

type Row = Record<string, unknown>;

/** A frame of plank.v1 or of plain mode. */
interface Frame {
  type?: string;
  id?: number | string | null;
  ch?: string;
  effect?: string;
  action?: string;
  table?: string;
  reason?: string;
  message?: string;
  data?: Row | null;
  rows?: Row[];
  pos?: string;
}

/** A change as a client sees it: effect (or, in plain mode, action), id, and the row if one was sent. */
export type Seen = [what: string, id: unknown, data?: unknown];

export class Watcher {
  /** every text that came */
  readonly texts: string[] = [];
  /** without `pos`, which may come at any time */
  readonly frames: Frame[] = [];
  /** the last id of an event stream */
  id = '';
  isOpen = false;
  /** the close code, or the HTTP status; 0 while the connection is open */
  code = 0;
  reason = '';
  send: (message: object) => void = () => {};
  close: () => void = () => {};
  /** The client reads nothing until `resume`. */
  pause: () => void = () => {};
  resume: () => void = () => {};
  /** of the first subscription of plank.v1 */
  ch: string | undefined;

  take(text: string): void {
    this.texts.push(text);
    const frame = JSON.parse(text) as Frame;
    if (frame.type !== 'pos') this.frames.push(frame);
  }

  /** Waits for a frame after the first `after` frames that has all members of `like`. */
  async frame(like: object, after = 0): Promise<Frame> {
    const isAlike = (frame: Frame) =>
      Object.entries(like).every(([name, value]) => frame[name as keyof Frame] === value);
    await until(
      `a frame like ${JSON.stringify(like)} after ${JSON.stringify(this.frames.slice(-4))} ${this.code} ${this.reason}`,
      () => this.frames.slice(after).some(isAlike),
      8_000,
    );
    return this.frames.slice(after).find(isAlike)!;
  }

  async ended(): Promise<void> {
    await until('the connection has ended', () => this.code !== 0, 8_000);
  }

  get seen(): Seen[] {
    return this.frames.flatMap((frame): Seen[] => {
      if (frame.type === 'change')
        return ['data' in frame ? [frame.effect!, frame.id, frame.data] : [frame.effect!, frame.id]];
      return frame.type === undefined ? [[frame.action!, frame.id, frame.data]] : [];
    });
  }

  /** Waits for the change of the row `id`. Resolves with the changes before it. */
  async seenBefore(id: unknown): Promise<Seen[]> {
    await this.frame({ id });
    return this.seen.slice(
      0,
      this.seen.findIndex((one) => one[1] === id),
    );
  }

  /** The last position that came. */
  get pos(): string {
    return this.frames.findLast(({ pos }) => pos !== undefined)!.pos!;
  }

  rows(after = 0): Row[] {
    return this.frames.slice(after).flatMap((frame) => frame.rows ?? []);
  }
}

interface Ask {
  table?: string;
  where?: object;
  columns?: string[];
  snapshot?: boolean;
  from?: string;
  ch?: string;
  /** of the last event */
  id?: string;
}

export class Viewers {
  readonly #stage: Stage;

  constructor(stage: Stage) {
    this.#stage = stage;
  }

  #socket(protocol: string[], token: string | null, query: string, url: string): Watcher {
    const ws = new WebSocket(`${url.replace('http', 'ws')}/ws${query}`, protocol, {
      headers: token === null ? {} : { authorization: `Bearer ${token}` },
    });
    const watcher = new Watcher();
    watcher.send = (message) => ws.send(JSON.stringify(message));
    watcher.close = () => ws.terminate();
    watcher.pause = () => ws.pause();
    watcher.resume = () => ws.resume();
    ws.on('message', (data) => watcher.take((data as Buffer).toString()));
    ws.on('error', () => {});
    ws.on('open', () => {
      watcher.isOpen = true;
    });
    ws.on('close', (code, reason) => {
      watcher.code = code;
      watcher.reason = reason.toString();
    });
    this.#stage.afterwards(() => ws.terminate());
    return watcher;
  }

  /** A connection of plank.v1, welcomed. */
  async peer(token: string | null, url = this.#stage.embedded.url): Promise<Watcher> {
    const watcher = this.#socket(['plank.v1'], token, '', url);
    await until('the connection is open', () => watcher.isOpen, 8_000);
    watcher.send({ type: 'hello' });
    await watcher.frame({ type: 'welcome' });
    return watcher;
  }

  /** A connection of plank.v1 with one subscription, which is live. */
  async live(token: string | null, ask: Ask = {}, url = this.#stage.embedded.url): Promise<Watcher> {
    const watcher = await this.peer(token, url);
    watcher.send({ type: 'subscribe', id: 1, table: 'doc', ...ask });
    watcher.ch = (await watcher.frame({ id: 1 })).ch;
    await watcher.frame({ type: 'live' });
    return watcher;
  }

  /** A client of plain mode. Resolves when it is open, so that its subscription has begun unless sets are loaded. */
  async plain(token: string | null, query = '', url = this.#stage.embedded.url): Promise<Watcher> {
    const watcher = this.#socket([], token, query, url);
    await until('the connection is open or closed', () => watcher.isOpen || watcher.code !== 0, 8_000);
    return watcher;
  }

  /** A client of plain mode under a policy with sets. Resolves when its subscription has begun, or it is closed. */
  async plainWithSets(token: string, query = ''): Promise<Watcher> {
    const count = () => this.#stage.metric('plank_subscriptions');
    const before = await count();
    const watcher = await this.plain(token, query);
    await until('the sets are loaded', async () => watcher.code !== 0 || (await count()) > before, 8_000);
    return watcher;
  }

  /** An event stream. `code` is the status where it is not 200. */
  async stream(token: string | null, { table = 'doc', ...ask }: Ask = {}): Promise<Watcher> {
    const parameters = new URLSearchParams();
    if (ask.where) parameters.set('where', JSON.stringify(ask.where));
    if (ask.columns) parameters.set('columns', ask.columns.join(','));
    if (ask.snapshot) parameters.set('snapshot', 'true');
    if (ask.from) parameters.set('since', ask.from);
    const abort = new AbortController();
    this.#stage.afterwards(() => abort.abort());
    const response = await fetch(`${this.#stage.embedded.url}/api/${table}/changes?${parameters}`, {
      headers: {
        ...(token === null ? {} : { authorization: `Bearer ${token}` }),
        ...(ask.id === undefined ? {} : { 'last-event-id': ask.id }),
      },
      signal: abort.signal,
    });
    const watcher = new Watcher();
    watcher.close = () => abort.abort();
    if (response.status !== 200) {
      watcher.code = response.status;
      watcher.reason = ((await response.json()) as { detail: string }).detail;
      return watcher;
    }
    void readEvents(response, watcher);
    await watcher.frame({ type: 'live' });
    return watcher;
  }
}

async function readEvents(response: Response, watcher: Watcher): Promise<void> {
  const decoder = new TextDecoder();
  let text = '';
  try {
    for await (const chunk of response.body!) {
      text += decoder.decode(chunk, { stream: true });
      const events = text.split('\n\n');
      text = events.pop()!;
      for (const line of events.flatMap((event) => event.split('\n'))) {
        if (line.startsWith('id: ')) watcher.id = line.slice(4);
        if (line.startsWith('data: ')) watcher.take(line.slice(6));
      }
    }
  } catch {
    // the test has ended the stream
  }
  watcher.code = 200;
}

/**
 * SQL for tests of policies: `doc`, of which users see their own rows without the column `secret`, the public sees public rows, and
 * administrators see everything; `own`, of which users see their own rows; and `hidden`, which nobody sees.
 */
export const policySchema = `create table todo (id int primary key, status text);
   select plank.attach('todo');
   create table doc (id int primary key, owner text, status text, secret text);
   select plank.attach('doc');
   create table own (id int primary key, owner text, doc int);
   select plank.attach('own');
   create table hidden (id int primary key, text text);
   select plank.attach('hidden');
   select plank.allow('doc', 'authenticated', read => '{"owner": {"$claim": "sub"}}', read_columns => '{owner,status}');
   select plank.allow('doc', 'admin', read => '{}');
   select plank.allow('doc', 'anonymous', read => '{"status": "public"}', read_columns => '{status}');
   select plank.allow('own', 'authenticated', read => '{"owner": {"$claim": "sub"}}');
   select plank.allow('own', 'admin', read => '{}')`;

/** In `policySchema`, what no client but an administrator may ever get. */
export const leaks = /hush|"secret"|"bob"/;
