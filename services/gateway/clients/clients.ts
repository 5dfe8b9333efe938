/**
 * The clients of this replica, over every transport: how many there are, whether more are accepted,
 * and which of them are slow. Every transport adds each client when it opens and removes it when it
 * closes.
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
/** … or if it catches up and still has this many bytes queued */
const catchingUpBytes = 64 * 1024;
/** dismissed clients get this long to close, then they are cut */
const goodbyeMs = 3_000;

export interface SlowClient {
  id: number;
  address: string;
  mode: string;
  /** bytes queued for it in this process */
  queuedBytes: number;
  /** changes between its place in the log and this gateway's; 0: all that it lacks is queued */
  behind: number;
  stalledMs: number;
  [field: string]: unknown;
}

export interface Survey {
  /** queued for all clients */
  queuedBytes: number;
  /** how many clients are slow */
  slow: number;
  /** the slow ones, those with the most queued bytes first */
  clients: SlowClient[];
}

interface ClientsOptions {
  /** connections that this replica accepts */
  max: number;
  /** how far this gateway is in the log */
  seq: () => number;
}

export class Clients {
  readonly max: number;
  /** no client is accepted: this replica leaves (balance/draining.ts sets it) */
  isLeaving = false;
  readonly #seq: () => number;
  /** in the order in which they came */
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

  /** There are as many clients as this replica accepts. */
  get isFull(): boolean {
    return this.#all.size >= this.max;
  }

  add(client: Client): void {
    this.#all.add(client);
  }

  remove(client: Client): void {
    this.#all.delete(client);
  }

  /** The oldest first. */
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

  /** With at most `limit` of the slow clients, the worst first. */
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

  #status({ id, address, mode, outlet, cursors }: Client, now: number): SlowClient {
    const seq = this.#seq();
    let behind = 0;
    for (const cursor of cursors) if (cursor.state === 'catching-up') behind = Math.max(behind, seq - cursor.seq);
    const { queuedBytes } = outlet;
    return { id, address, mode, queuedBytes, behind, stalledMs: Math.round(outlet.stalledMs(now)) };
  }

  /**
   * Resolves when all clients are gone. To be called when all were dismissed and none is accepted.
   * Cuts those that stay too long.
   */
  async allGone(): Promise<void> {
    const deadline = performance.now() + goodbyeMs;
    while (this.#all.size > 0 && performance.now() < deadline) await sleep(20);
    for (const client of this.#all) client.cut();
  }
}
