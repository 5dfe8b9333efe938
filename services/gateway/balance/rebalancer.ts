/**
 * Gives connections to other replicas while this replica has more than its share. fair-share.ts
 * decides how many; this file picks the clients and asks them to go. Invariant: a client that is
 * catching up stays, and so does a client without a position to resume from.
 */
import { gatewaysIn } from '#shared/bus/node-state.ts';
import type { Roster } from '#shared/bus/roster.ts';
import type { Log } from '#shared/process/logger.ts';
import type { GatewayMetrics } from '#shared/process/metrics.ts';
import type { Client } from '../clients/client.ts';
import type { Clients } from '../clients/clients.ts';
import { depart } from './departure.ts';
import {
  askedFewer,
  freshMemory,
  hasRoom,
  type RebalanceMemory,
  type Replica,
  rebalance,
  returnMs,
  tolerance,
} from './fair-share.ts';

const everyMs = 1_000;
/** the clients that are asked in one second leave within this time */
const overMs = 800;

interface RebalancerOptions {
  roster: Roster;
  /** the present state of this replica */
  own: () => Omit<Replica, 'instance'>;
  clients: Clients;
  /** most clients to give away in a second; 0: rebalancing is off */
  perSecond: number;
  log: Log;
  metrics: GatewayMetrics;
}

export class Rebalancer {
  readonly #options: RebalancerOptions;
  readonly #abort = new AbortController();
  #memory: RebalanceMemory = freshMemory;
  /** number of clients that were asked to go, with the time */
  #asked: { at: number; count: number }[] = [];
  #timer: NodeJS.Timeout | undefined;

  constructor(options: RebalancerOptions) {
    this.#options = options;
  }

  start(): void {
    if (this.#options.perSecond > 0) this.#timer = setInterval(() => this.#tick(), everyMs);
  }

  /** Stops. Clients that were asked to go, but are still connected, stay. */
  stop(): void {
    clearInterval(this.#timer);
    this.#abort.abort();
  }

  /** Number of connections that were asked to go in the last 3 s: they may not have arrived elsewhere yet. */
  get moving(): number {
    const since = performance.now() - returnMs;
    this.#asked = this.#asked.filter(({ at }) => at > since);
    return this.#asked.reduce((sum, { count }) => sum + count, 0);
  }

  /** Whether another replica has room and clearly fewer connections, so that a new client should go there. */
  get crowded(): boolean {
    const fewest = Math.min(...this.#others().map((other) => (hasRoom(other) ? other.connections : Infinity)));
    return this.#options.own().connections > fewest + tolerance(fewest) / 2;
  }

  #tick(): void {
    const { roster, own, clients, perSecond, log, metrics } = this.#options;
    const now = performance.now();
    const self = roster.instance;
    const replicas = [...this.#others(), { instance: self, ...own() }];
    const before = this.#memory;
    const { count, memory } = rebalance(before, replicas, { self, now, perSecond });
    this.#memory = memory;
    if (memory.isRebalancing !== before.isRebalancing)
      log.info({ isRebalancing: memory.isRebalancing }, 'rebalancing of connections has changed');
    if (memory.restsUntil > before.restsUntil)
      log.warn(
        { restMinutes: Math.round((memory.restsUntil - now) / 60_000) },
        'connections given to other replicas came back: does the balancer choose the replica with the fewest?',
      );
    if (count === 0) return;
    const leaving = pick(clients, count);
    this.#memory = askedFewer(memory, count - leaving.length);
    this.#asked.push({ at: now, count: leaving.length });
    metrics.shed.inc(leaving.length);
    void depart(leaving, { overMs, reason: 'others have room, come back', signal: this.#abort.signal });
  }

  #others(): Replica[] {
    const { roster } = this.#options;
    return gatewaysIn(roster.nodes())
      .filter(({ instance }) => instance !== roster.instance)
      .map(({ instance, state }) => ({ ...state, instance }));
  }
}

/**
 * Up to `count` of the clients that may go, the oldest connections first, for two reasons. No client
 * is asked twice while another client has not been asked. And a balancer that was reloaded counts
 * only connections opened after the reload: it would send such a client back to the same replica.
 */
function pick(clients: Iterable<Client>, count: number): Client[] {
  const oldest: Client[] = [];
  for (const client of clients) {
    if (oldest.length === count) break;
    if (client.resumes && isLive(client)) oldest.push(client);
  }
  return oldest;
}

function isLive({ outlet, cursors }: Client): boolean {
  return outlet.open && outlet.queuedBytes === 0 && cursors.every(({ state }) => state === 'live');
}
