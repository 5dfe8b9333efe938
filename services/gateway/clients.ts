/** The clients of this replica as operators see them: who is slow and by how much, and the end of one. */
import type { Peer } from './connection.ts';

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
  /** the slowest of them, by bytes */
  clients: SlowClient[];
}

export class Clients {
  readonly #sources: readonly { readonly peers: Iterable<Peer> }[];
  readonly #seq: () => number;

  /** `seq`: how far this gateway is. */
  constructor(sources: readonly { readonly peers: Iterable<Peer> }[], seq: () => number) {
    this.#sources = sources;
    this.#seq = seq;
  }

  /** Looks at each client once: to be asked once a second at most. */
  survey(limit: number): Survey {
    const now = performance.now();
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
    return { queuedBytes: sum, slow: slow.length, clients: slow.slice(0, limit) };
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
