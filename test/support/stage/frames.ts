// Owns how tests use plank.v1 frame by frame, over a WebSocket or an event stream: one subscription each, with the same frames
// on both. What must stay true: frames are kept from the first instant, in order; every wait has a deadline.

import { WebSocket } from 'ws';
import type { ChangeFrame, RowsFrame, ServerFrame } from '#shared/wire.ts';

const deadlineMs = 20_000;

interface Ask {
  table: string;
  where?: unknown;
  columns?: string[];
  snapshot?: boolean;
  /** sent to an event stream as Last-Event-ID */
  from?: string;
  /** sent to an event stream as a parameter */
  since?: string;
}

/** One subscription's frames. */
export class FrameReader {
  readonly all: ServerFrame[] = [];
  /** the ids of an event stream's events */
  readonly ids: (string | undefined)[] = [];
  /** why the transport ended, undefined while it is open */
  ended: string | undefined;
  readonly #close: () => void;
  #read = 0;
  #wake: (() => void) | undefined;

  constructor(close: () => void) {
    this.#close = close;
  }

  push(frame: ServerFrame): void {
    this.all.push(frame);
    this.#wake?.();
  }

  end(why: string): void {
    this.ended ??= why;
    this.#wake?.();
  }

  close(): void {
    this.#close();
  }

  /** The next frame that was not taken yet. */
  async next(): Promise<ServerFrame> {
    const deadline = Date.now() + deadlineMs;
    while (this.#read >= this.all.length) {
      if (this.ended !== undefined) throw new Error(`no further frame: ${this.ended}`);
      const left = deadline - Date.now();
      if (left <= 0)
        throw new Error(`no further frame within ${deadlineMs} ms; so far ${JSON.stringify(this.all.slice(-3))}`);
      await new Promise<void>((resolve) => {
        const timer = setTimeout(resolve, left);
        this.#wake = () => {
          clearTimeout(timer);
          resolve();
        };
      });
    }
    return this.all[this.#read++]!;
  }

  /** The next frame, which must be of this type. Skips `pos` frames, which may come at any time. */
  async expect<T extends ServerFrame['type']>(type: T): Promise<Extract<ServerFrame, { type: T }>> {
    for (;;) {
      const frame = await this.next();
      if (frame.type === type) return frame as Extract<ServerFrame, { type: T }>;
      if (frame.type !== 'pos') throw new Error(`expected ${type}, got ${JSON.stringify(frame)}`);
    }
  }

  async changes(count: number): Promise<ChangeFrame[]> {
    const changes: ChangeFrame[] = [];
    while (changes.length < count) changes.push(await this.expect('change'));
    return changes;
  }

  /** All pages of a snapshot. */
  async rows(): Promise<RowsFrame['rows']> {
    const rows: RowsFrame['rows'] = [];
    for (;;) {
      const page = await this.expect('rows');
      rows.push(...page.rows);
      if (!page.more) return rows;
    }
  }
}

export type Transport = (url: string, ask: Ask) => Promise<FrameReader>;

/** `url` is http://host:port. Resolves when the subscription has its `ok`. Rejects with the error's code. */
export const overWebSocket: Transport = async (url, ask) => {
  const ws = new WebSocket(`${url.replace('http', 'ws')}/ws`, 'plank.v1');
  const reader = new FrameReader(() => ws.terminate());
  ws.on('message', (data) => reader.push(JSON.parse((data as Buffer).toString()) as ServerFrame));
  ws.on('close', (code, reason) => reader.end(`closed with ${code} ${reason.toString()}`));
  ws.on('error', (error) => reader.end(error.message));
  ws.on('open', () => {
    ws.send(JSON.stringify({ type: 'hello' }));
    ws.send(JSON.stringify({ type: 'subscribe', id: 1, ...ask }));
  });
  await reader.expect('welcome');
  const answer = await reader.next();
  if (answer.type === 'error') {
    reader.close();
    throw new Error(answer.code);
  }
  if (answer.type !== 'ok') throw new Error(`expected ok, got ${JSON.stringify(answer)}`);
  return reader;
};

/** The same over an event stream. Rejects with the problem's code. */
export const overEvents: Transport = async (url, ask) => {
  const parameters = new URLSearchParams();
  if (ask.where !== undefined) parameters.set('where', JSON.stringify(ask.where));
  if (ask.columns) parameters.set('columns', ask.columns.join(','));
  if (ask.snapshot) parameters.set('snapshot', 'true');
  if (ask.since !== undefined) parameters.set('since', ask.since);
  const abort = new AbortController();
  const response = await fetch(`${url}/api/${encodeURIComponent(ask.table)}/changes?${parameters}`, {
    signal: abort.signal,
    headers: ask.from === undefined ? {} : { 'Last-Event-ID': ask.from },
  });
  if (!response.ok) {
    // a proxy's own answer (to a URL that is too long) is no problem document
    const isProblem = response.headers.get('content-type')?.startsWith('application/problem+json');
    throw new Error(isProblem ? ((await response.json()) as { code: string }).code : `HTTP_${response.status}`);
  }
  const reader = new FrameReader(() => abort.abort());
  void readEvents(response, reader);
  return reader;
};

async function readEvents(response: Response, reader: FrameReader): Promise<void> {
  const decoder = new TextDecoder();
  let text = '';
  // after rows or a resync, positions are no place to resume from until the next live
  let isBeginning = false;
  try {
    for await (const chunk of response.body!) {
      text += decoder.decode(chunk, { stream: true });
      const events = text.split('\n\n');
      text = events.pop()!;
      for (const event of events) {
        const data = event
          .split('\n')
          .filter((line) => line.startsWith('data: '))
          .map((line) => line.slice(6))
          .join('\n');
        if (data === '') continue;
        const frame = JSON.parse(data) as ServerFrame;
        const id = event
          .split('\n')
          .find((line) => line.startsWith('id: '))
          ?.slice(4);
        if (frame.type === 'rows') isBeginning = true;
        if (frame.type === 'resync') isBeginning = frame.pos === undefined;
        if (frame.type === 'live') isBeginning = false;
        const expected = isBeginning ? 'anew' : 'pos' in frame ? frame.pos : 'end';
        if (id !== expected) reader.end(`an event has the id ${id} instead of ${expected}: ${data.slice(0, 200)}`);
        reader.ids.push(id);
        reader.push(frame);
      }
    }
    reader.end('the stream ended');
  } catch (error) {
    reader.end((error as Error).message);
  }
}
