/** The clients of this replica as operators see them: who is slow and by how much, and the end of one. */
import type { Peer } from './connection.ts';

/** what was found is good for so long: several ask for it each second, of tens of thousands of clients */
const freshMs = 500;
/** one that has taken nothing for so long while bytes wait for it is slow … */
const stalledMs = 3_000;
/** … and so is one that was taken off the live ones and has so many bytes waiting still */
const catchingUpBytes = 64 * 1024;

export interface SlowClient {
  id: number;
  address: string;
  mode: string;
  /** bytes that wait for it in this process */
  queuedBytes: number;
  /** changes that it has to go; 0: all it lacks is in those bytes */
  behind: number;
  stalledMs: number;
  [field: string]: unknown;
}

export interface Survey {
  /** of all clients */
  queuedBytes: number;
  /** how many are slow */
  slow: number;
  /** those, by the bytes that wait for them */
  clients: SlowClient[];
}

export class Clients {
  readonly #sources: readonly { readonly peers: Iterable<Peer> }[];
  readonly #seq: () => number;
  #found: Survey = { queuedBytes: 0, slow: 0, clients: [] };
  #foundAt = Number.NEGATIVE_INFINITY;

  /** `seq`: how far this gateway is. */
  constructor(sources: readonly { readonly peers: Iterable<Peer> }[], seq: () => number) {
    this.#sources = sources;
    this.#seq = seq;
  }

  /** With at most `limit` of the slow ones, the worst first. */
  survey(limit: number): Survey {
    const now = performance.now();
    if (now - this.#foundAt >= freshMs) {
      this.#found = this.#look(now);
      this.#foundAt = now;
    }
    return { ...this.#found, clients: this.#found.clients.slice(0, limit) };
  }

  #look(now: number): Survey {
    const slow: SlowClient[] = [];
    let sum = 0;
    for (const peer of this.#peers()) {
      const { queuedBytes } = peer.outlet;
      if (queuedBytes === 0) continue;
      sum += queuedBytes;
      const status = this.#status(peer, now);
      if (status.stalledMs >= stalledMs || (status.behind > 0 && queuedBytes >= catchingUpBytes)) slow.push(status);
    }
    slow.sort((a, b) => b.queuedBytes - a.queuedBytes);
    return { queuedBytes: sum, slow: slow.length, clients: slow };
  }

  find(id: number): Peer | undefined {
    for (const peer of this.#peers()) if (peer.id === id) return peer;
    return undefined;
  }

  *#peers(): Iterable<Peer> {
    for (const { peers } of this.#sources) yield* peers;
  }

  #status({ id, address, mode, outlet }: Peer, now: number): SlowClient {
    const seq = this.#seq();
    let behind = 0;
    for (const { state, cursor } of outlet.subscriptions)
      if (state === 'catching-up') behind = Math.max(behind, seq - cursor);
    const { queuedBytes } = outlet;
    return { id, address, mode, queuedBytes, behind, stalledMs: Math.round(outlet.stalledMs(now)) };
  }
}
