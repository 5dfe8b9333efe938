// Owns a gateway and a listener in the test's process, their database, and the clients that tests connect: clients of plain mode,
// event streams, and peers, which are connections of plank.v1 that send any message. What must stay true: when a test ends, the
// gateway holds nothing of them.

import { afterAll, afterEach, beforeAll, expect } from 'vitest';
import { WebSocket } from 'ws';
import type { Pool } from '#shared/postgres/postgres.ts';
import { type ChangeFrame, parsePosition, type ServerFrame } from '#shared/wire.ts';
import { testPool } from '../servers/pool.ts';
import { createDatabase } from '../servers/servers.ts';
import { until } from '../wait.ts';
import { type ClientOptions, TestClient } from './client.ts';
import { type Embedded, startEmbedded } from './embedded.ts';
import { FrameReader, overEvents, type Transport } from './frames.ts';

export interface Peer {
  reader: FrameReader;
  ws: WebSocket;
  /** the close code, 0 while the connection is open */
  code: number;
  reason: string;
  send: (message: unknown) => void;
}

export class Stage {
  databaseUrl = '';
  pool!: Pool;
  embedded!: Embedded;
  readonly #stack = new AsyncDisposableStack();
  readonly #open: { close(): void }[] = [];
  #requests = 0;

  /**
   * For a test file: starts before its tests and ends after them. `setUp` is SQL; `write` gets the lines of the log.
   */
  static of(setUp: string, env: Record<string, string> = {}, write?: (line: string) => void): Stage {
    const stage = new Stage();
    beforeAll(() => stage.#start(setUp, env, write));
    afterEach(() => stage.#forget());
    afterAll(() => stage.#stack.disposeAsync());
    return stage;
  }

  async #start(setUp: string, env: Record<string, string>, write?: (line: string) => void): Promise<void> {
    const database = await createDatabase();
    this.#stack.defer(() => database.drop());
    this.databaseUrl = database.url;
    this.pool = testPool(database.url);
    this.#stack.defer(() => this.pool.end());
    await this.sql(setUp);
    this.embedded = await startEmbedded(database.url, env, write);
    this.#stack.defer(() => this.embedded.stop());
  }

  /** Closes every client of the test, and waits until the gateway holds nothing of them. */
  async #forget(): Promise<void> {
    for (const one of this.#open.splice(0)) one.close();
    const counts = ['plank_subscriptions', 'plank_connections', 'plank_channels', 'plank_catching_up'];
    const areGone = async () => {
      const text = await this.embedded.registry.metrics();
      return counts.every((name) => sumOf(text, name) === 0);
    };
    await until(`${counts.join(', ')} are 0 again`, areGone, 6_000);
    // after a test that blocked Postgres, /health reports that until the next confirmation
    const isWell = () =>
      fetch(`${this.embedded.url}/health`).then(
        ({ status }) => status === 200,
        () => false, // a kept-alive connection was closed meanwhile
      );
    await until('the gateway is healthy', isWell, 15_000);
  }

  readonly sql = (text: string, values: unknown[] = []) => this.pool.query(text, values);

  /** The sum of a metric over its series. */
  async metric(name: string): Promise<number> {
    return sumOf(await this.embedded.registry.metrics(), name);
  }

  /** Waits until every change so far has passed the gateway. Writes to `todo` itself. */
  async arrived(): Promise<void> {
    const { rows } = await this.sql(
      `insert into todo values (-77, 'x') on conflict (id) do update set status = 'y' returning pg_current_xact_id() as tx`,
    );
    await until(
      'the gateway has passed the change',
      async () => {
        const { rows: ends } = await this.sql(
          `select next_seq - 1 as seq, pg_visible_in_snapshot($1::text::xid8, snap) as drained from plank.leader`,
          [rows[0].tx],
        );
        const { position } = await this.health();
        return ends[0].drained === true && parsePosition(position)!.seq >= Number(ends[0].seq);
      },
      5_000,
    );
  }

  /** Runs `work` while nothing is drained: its changes come as one batch afterwards. */
  async undrained(work: () => Promise<unknown>): Promise<void> {
    const holder = await this.pool.connect();
    try {
      await holder.query('begin; select from plank.leader for update');
      await work();
    } finally {
      await holder.query('rollback');
      holder.release();
    }
  }

  /** A connection of plank.v1 that sends what the test says, from `hello` on. */
  async peer(url = this.embedded.url, hello = true): Promise<Peer> {
    const ws = new WebSocket(`${url.replace('http', 'ws')}/ws`, 'plank.v1');
    const reader = new FrameReader(() => ws.terminate());
    this.#open.push(reader);
    const self: Peer = {
      reader,
      ws,
      code: 0,
      reason: '',
      send: (message) =>
        ws.send(typeof message === 'string' || Buffer.isBuffer(message) ? message : JSON.stringify(message)),
    };
    ws.on('message', (data) => reader.push(JSON.parse((data as Buffer).toString()) as ServerFrame));
    ws.on('error', () => {});
    ws.on('close', (code, reason) => {
      self.code = code;
      self.reason = reason.toString();
      reader.end(`closed with ${code}`);
    });
    await new Promise((resolve, reject) => ws.on('open', resolve).on('error', reject));
    if (hello) {
      self.send({ type: 'hello' });
      await reader.expect('welcome');
    }
    return self;
  }

  /** Subscribes. Resolves with the channel. */
  async subscribe({ send, reader }: Peer, ask: object): Promise<string> {
    const id = ++this.#requests;
    send({ type: 'subscribe', id, ...ask });
    const ok = await reader.expect('ok');
    expect(ok.id).toBe(id);
    return ok.ch!;
  }

  /** A client of plain mode, which does not come back after a close. */
  readonly plain = async (options: Partial<ClientOptions> = {}): Promise<TestClient> => {
    const client = await TestClient.connect({ url: this.plainUrl, keepsFrames: true, reconnects: false, ...options });
    this.afterwards(() => client.stop());
    return client;
  };

  get plainUrl(): string {
    return `${this.embedded.url.replace('http', 'ws')}/ws`;
  }

  /** Runs `close` when the test ends. */
  afterwards(close: () => void): void {
    this.#open.push({ close });
  }

  async health(): Promise<{ connections: number; position: string }> {
    const answer = await fetch(`${this.embedded.url}/health`);
    return (await answer.json()) as { connections: number; position: string };
  }

  /** An event stream. */
  readonly stream = async (ask: Parameters<Transport>[1], url = this.embedded.url): Promise<FrameReader> => {
    const reader = await overEvents(url, ask);
    this.#open.push(reader);
    return reader;
  };
}

function sumOf(metrics: string, name: string): number {
  if (!metrics.includes(`# TYPE ${name} `)) throw new Error(`there is no metric ${name}`);
  const lines = metrics.split('\n').filter((line) => line.startsWith(`${name}{`));
  return lines.reduce((sum, line) => sum + Number(line.slice(line.lastIndexOf(' ') + 1)), 0);
}

export const closed = (one: Peer, deadlineMs = 2_000) =>
  until('the connection is closed', () => one.code !== 0, deadlineMs);

export function changesOf({ reader }: Peer, ch: string): ChangeFrame[] {
  return reader.all.filter((frame): frame is ChangeFrame => frame.type === 'change' && frame.ch === ch);
}

export const seqOf = (frame: ServerFrame): number => parsePosition((frame as { pos: string }).pos)!.seq;
