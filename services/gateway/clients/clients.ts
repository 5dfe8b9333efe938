/**
 * The clients of this replica, over every transport: their number, whether the replica accepts more,
 * and which clients are slow. Every transport adds each client when the client connects, and removes
 * the client when it is gone.
 */
import { sleep } from '#shared/waiting.ts';
import type { Client } from './client.ts';

/**
 * a survey is reused for this long: several callers ask for one each second, and it visits tens of
 * thousands of clients
 */
const freshMs = 500;
/** a client is slow if it has taken nothing for this long while bytes are queued for it … */
const stalledMs = 3_000;
/** … or if it is catching up and has at least this many bytes queued */
const catchingUpBytes = 64 * 1024;
/** dismissed clients have this long to close, then their connections are cut */
const goodbyeMs = 3_000;

export interface SlowClient {
  id: number;
  address: string;
  mode: string;
  /** null: there is no token */
  user: string | null;
  /** null: AUTH=off, or an operator's connection */
  role: string | null;
  /** when the token expires, in seconds since 1970; null: there is no token */
  expiresAt: number | null;
  /** bytes that this process has queued for the client */
  queuedBytes: number;
  /** changes between the client's place in the log and this gateway's; 0: everything that it lacks is queued */
  behind: number;
  stalledMs: number;
  [field: string]: unknown;
}

export interface Survey {
  /** bytes queued for all clients */
  queuedBytes: number;
  /** number of slow clients */
  slow: number;
  /** the slow clients, the one with the most queued bytes first */
  clients: SlowClient[];
}

interface ClientsOptions {
  /** the number of clients that this replica accepts */
  max: number;
  /** this gateway's place in the log */
  seq: () => number;
}

export class Clients {
  readonly max: number;
  /** true: this replica is leaving and accepts no client (set by balance/draining.ts) */
  isLeaving = false;
  readonly #seq: () => number;
  /** in the order in which they connected */
  readonly #all = new Set<Client>();
  #survey: Survey = { queuedBytes: 0, slow: 0, clients: [] };
  #surveyedAt = Number.NEGATIVE_INFINITY;

  constructor({ max, seq }: ClientsOptions) {
    this.max = max;
    this.#seq = seq;
  }

  get size(): number {
    return this.#all.size;
  }

  /** Whether this replica has as many clients as it accepts. */
  get isFull(): boolean {
    return this.#all.size >= this.max;
  }

  add(client: Client): void {
    this.#all.add(client);
  }

  remove(client: Client): void {
    this.#all.delete(client);
  }

  /** All clients, the oldest connection first. */
  [Symbol.iterator](): Iterator<Client> {
    return this.#all.values();
  }

  count(transport: Client['transport']): number {
    let count = 0;
    for (const client of this.#all) if (client.transport === transport) count++;
    return count;
  }

  find(id: number): Client | undefined {
    for (const client of this.#all) if (client.id === id) return client;
    return undefined;
  }

  /** Sums over all clients, and at most `limit` slow clients, the worst first. May be 500 ms old. */
  survey(limit: number): Survey {
    const now = performance.now();
    if (now - this.#surveyedAt >= freshMs) {
      this.#survey = this.#look(now);
      this.#surveyedAt = now;
    }
    return { ...this.#survey, clients: this.#survey.clients.slice(0, limit) };
  }

  #look(now: number): Survey {
    const slow: SlowClient[] = [];
    let sum = 0;
    for (const client of this.#all) {
      const { queuedBytes } = client.outlet;
      if (queuedBytes === 0) continue;
      sum += queuedBytes;
      const status = this.#status(client, now);
      if (status.stalledMs >= stalledMs || (status.behind > 0 && queuedBytes >= catchingUpBytes)) slow.push(status);
    }
    slow.sort((a, b) => b.queuedBytes - a.queuedBytes);
    return { queuedBytes: sum, slow: slow.length, clients: slow };
  }

  #status({ id, address, mode, outlet, cursors, viewer, expiresAt }: Client, now: number): SlowClient {
    const seq = this.#seq();
    let behind = 0;
    for (const cursor of cursors) if (cursor.state === 'catching-up') behind = Math.max(behind, seq - cursor.seq);
    const { queuedBytes } = outlet;
    const { user, role } = viewer ?? { user: null, role: null };
    const stalledMs = Math.round(outlet.stalledMs(now));
    return { id, address, mode, user, role, expiresAt, queuedBytes, behind, stalledMs };
  }

  /**
   * Waits up to 3 s until all clients are gone, then cuts the connections that are left. To be
   * called after all clients were dismissed, and while the replica accepts none.
   */
  async allGone(): Promise<void> {
    const deadline = performance.now() + goodbyeMs;
    while (this.#all.size > 0 && performance.now() < deadline) await sleep(20);
    for (const client of this.#all) client.cut();
  }
}
