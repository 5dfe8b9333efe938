// Owns a plain-mode client that records what it receives. What must stay true:
// - it listens from the first instant: it misses no frame, not even one that comes with the upgrade's answer;
// - it comes back as users' clients should: with `?since=<last pos>`, after a jittered pause, after any close but 44xx;
// - positions must rise, and the versions of a row (`data.value`) must count up by one: `problems` has each violation.

import { WebSocket } from 'ws';
import { until } from '../wait.ts';

export interface ClientOptions {
  /** ws://…/ws */
  url: string;
  /** the position to resume from on the first connection */
  since?: string;
  tables?: string;
  origin?: string;
  /** false: does not come back after a close */
  reconnects?: boolean;
  /** keeps each frame's text in `frames` */
  keepsFrames?: boolean;
}

/** The changes of one row that arrived: versions `first` … `last`, each once and in order. */
export interface RowTrail {
  first: number;
  last: number;
  deleted: boolean;
}

interface Change {
  table: string;
  action: 'INSERT' | 'UPDATE' | 'DELETE' | 'TRUNCATE';
  id: unknown;
  data: { value?: number; updated_at?: string } | null;
  pos: string;
}

const maxProblems = 20;

export class TestClient {
  readonly rows = new Map<string, RowTrail>();
  readonly problems: string[] = [];
  readonly frames: string[] = [];
  /** from a row's `updated_at` to its arrival, in ms, for each INSERT and UPDATE of a row that has `updated_at` */
  readonly latencies: number[] = [];
  readonly closeCodes: number[] = [];
  readonly closeReasons: string[] = [];
  /** HTTP statuses of refused upgrades */
  readonly refusals: number[] = [];
  count = 0;
  /** pings of the server */
  pings = 0;
  bytes = 0;
  opens = 0;
  pos: string | undefined;
  /** at each return: the position sent, and the first position received */
  readonly resumed: { since: string; first?: string }[] = [];
  readonly #options: ClientOptions;
  #ws!: WebSocket;
  #seq = 0;
  #failures = 0;
  #retry: NodeJS.Timeout | undefined;
  #over = false;

  private constructor(options: ClientOptions) {
    this.#options = options;
    this.pos = options.since;
    if (options.since) this.#seq = seqOf(options.since);
  }

  /** Resolves when the client is connected. Rejects when the first connection fails or is refused. */
  static async connect(options: ClientOptions): Promise<TestClient> {
    const client = new TestClient(options);
    await new Promise<void>((resolve, reject) => {
      client.#dial();
      client.#ws.once('open', resolve);
      client.#ws.once('error', reject);
      client.#ws.once('unexpected-response', (_, { statusCode }) => reject(new Error(`refused with ${statusCode}`)));
    }).catch((error: unknown) => {
      client.stop();
      throw error;
    });
    return client;
  }

  get reconnects(): number {
    return Math.max(0, this.opens - 1);
  }

  get isOpen(): boolean {
    return this.#ws.readyState === WebSocket.OPEN;
  }

  /** Stops reading from the socket: the server's side fills up. */
  pause(): void {
    this.#ws.pause();
  }

  resume(): void {
    this.#ws.resume();
  }

  /** Reads until the next frame has come, and stops again, so that it takes as little as possible from the socket. */
  async sip(deadlineMs = 5_000): Promise<void> {
    const ws = this.#ws;
    const { promise, resolve } = Promise.withResolvers<boolean>();
    const late = setTimeout(resolve, deadlineMs, false);
    ws.once('message', () => {
      ws.pause();
      resolve(true);
    });
    ws.resume();
    const came = await promise;
    clearTimeout(late);
    if (!came) throw new Error(`no frame came within ${deadlineMs} ms, after ${this.pos}`);
  }

  send(message: string | Buffer): void {
    this.#ws.send(message);
  }

  /** Resolves when the server has answered a ping, and so has read everything that was sent before. */
  async ping(deadlineMs = 5_000): Promise<void> {
    let answered = false;
    this.#ws.once('pong', () => {
      answered = true;
    });
    this.#ws.ping();
    await until('the answer to a ping', () => answered, deadlineMs);
  }

  /** Closes the connection and stays away. */
  stop(): void {
    this.#over = true;
    clearTimeout(this.#retry);
    this.#ws.terminate();
  }

  /** Waits for the next `n` frames that were not taken yet (`keepsFrames`). */
  async take(n: number, deadlineMs = 5_000): Promise<string[]> {
    await until(`${n} frames (got ${this.frames.length})`, () => this.frames.length >= n, deadlineMs).catch((error) => {
      throw new Error(`${(error as Error).message}; got ${JSON.stringify(this.frames).slice(0, 2_000)}`);
    });
    return this.frames.splice(0, n);
  }

  /** Waits until the server has closed the connection. Resolves with the close code. */
  async closed(deadlineMs = 5_000): Promise<number> {
    await until('the close of the connection', () => this.closeCodes.length > 0, deadlineMs);
    return this.closeCodes.at(-1)!;
  }

  #dial(): void {
    const { tables, origin } = this.#options;
    const url = new URL(this.#options.url);
    if (tables !== undefined) url.searchParams.set('tables', tables);
    if (this.pos !== undefined) url.searchParams.set('since', this.pos);
    const ws = new WebSocket(url, {
      perMessageDeflate: false,
      handshakeTimeout: 5_000,
      ...(origin === undefined ? {} : { origin }),
    });
    this.#ws = ws;
    ws.on('error', () => {});
    ws.on('unexpected-response', (request, response) => {
      this.refusals.push(response.statusCode ?? 0);
      request.destroy();
      this.#again();
    });
    ws.on('open', () => {
      this.opens++;
      this.#failures = 0;
      if (this.opens > 1 && this.pos !== undefined) this.resumed.push({ since: this.pos });
    });
    ws.on('message', (data: Buffer) => this.#take(data));
    ws.on('ping', () => {
      this.pings++;
    });
    ws.on('close', (code, reason) => {
      if (this.#over || ws !== this.#ws) return;
      this.closeCodes.push(code);
      this.closeReasons.push(reason.toString());
      if (code < 4400 || code >= 4500) this.#again();
    });
  }

  #again(): void {
    if (this.#over || this.#options.reconnects === false) return;
    clearTimeout(this.#retry);
    this.#retry = setTimeout(() => this.#dial(), Math.random() * Math.min(1_000, 100 * 2 ** this.#failures++));
  }

  #take(data: Buffer): void {
    const text = data.toString();
    if (this.#options.keepsFrames) this.frames.push(text);
    const change = JSON.parse(text) as Change;
    this.count++;
    this.bytes += data.length;
    const seq = seqOf(change.pos);
    if (seq <= this.#seq) this.#problem(`${change.pos} came after ${this.pos}`);
    this.#seq = seq;
    this.pos = change.pos;
    const resumed = this.resumed.at(-1);
    if (resumed && resumed.first === undefined) resumed.first = change.pos;
    // a DELETE has the old row, whose last update may be seconds ago
    if (change.action !== 'DELETE' && change.data?.updated_at !== undefined)
      this.latencies.push(performance.timeOrigin + performance.now() - Date.parse(change.data.updated_at));
    if (change.action !== 'TRUNCATE') this.#fold(change);
  }

  #fold({ table, action, id, data, pos }: Change): void {
    const version = data?.value ?? 0;
    const key = `${table}/${JSON.stringify(id)}`;
    const trail = this.rows.get(key);
    if (!trail) return void this.rows.set(key, { first: version, last: version, deleted: action === 'DELETE' });
    const expected = action === 'DELETE' ? trail.last : trail.last + 1;
    if (trail.deleted || action === 'INSERT' || version !== expected)
      this.#problem(
        `${key} at ${pos}: ${action} of version ${version} after ${trail.deleted ? 'its DELETE' : trail.last}`,
      );
    trail.last = version;
    trail.deleted = action === 'DELETE';
  }

  #problem(text: string): void {
    if (this.problems.length < maxProblems) this.problems.push(text);
  }
}

export function seqOf(pos: string): number {
  return Number(pos.slice(pos.indexOf('.') + 1));
}

/** Connects many clients, 25 at a time, so that none waits long for its handshake. */
export async function connectAll(count: number, options: ClientOptions): Promise<TestClient[]> {
  const clients: TestClient[] = [];
  while (clients.length < count) {
    const some = Math.min(25, count - clients.length);
    clients.push(...(await Promise.all(Array.from({ length: some }, () => TestClient.connect(options)))));
  }
  return clients;
}

/** The q-th part of the sorted values: `quantile(latencies, 0.99)`. */
export function quantile(values: readonly number[], q: number): number {
  const sorted = [...values].sort((a, b) => a - b);
  return sorted[Math.min(sorted.length - 1, Math.floor(sorted.length * q))] ?? 0;
}
