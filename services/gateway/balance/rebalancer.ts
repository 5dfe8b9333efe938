/**
 * Gives connections away while this replica has more than its share (fair-share.ts decides how
 * many): picks the clients that move best and asks them to go. What must stay true: clients that
 * are catching up are left alone, and so are those with no position to go on from.
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
/** the clients that are asked in one second leave within this part of it */
const overMs = 800;

interface RebalancerOptions {
  roster: Roster;
  /** this replica, as it is now */
  own: () => Omit<Replica, 'instance'>;
  clients: Clients;
  /** 0: never */
  perSecond: number;
  log: Log;
  metrics: GatewayMetrics;
}

export class Rebalancer {
  readonly #options: RebalancerOptions;
  readonly #abort = new AbortController();
  #memory: RebalanceMemory = freshMemory;
  /** how many were asked to go, and when */
  #asked: { at: number; count: number }[] = [];
  #timer: NodeJS.Timeout | undefined;

  constructor(options: RebalancerOptions) {
    this.#options = options;
  }

  start(): void {
    if (this.#options.perSecond > 0) this.#timer = setInterval(() => this.#tick(), everyMs);
  }

  /** Clients that have been asked to go and are still here stay. */
  stop(): void {
    clearInterval(this.#timer);
    this.#abort.abort();
  }

  /** Connections that were asked to go lately, and may not have arrived elsewhere. */
  get moving(): number {
    const since = performance.now() - returnMs;
    this.#asked = this.#asked.filter(({ at }) => at > since);
    return this.#asked.reduce((sum, { count }) => sum + count, 0);
  }

  /** Another replica has clearly fewer connections, so that a new client should go there. */
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
 * Up to `count` of the clients that may go, the oldest first: so no client is asked twice while
 * others have not been asked. And a balancer that was reloaded knows only the connections that came
 * since: it would send one of those back to where it just was.
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
