/**
 * Gives connections away while this replica has more than its share (shedding.ts says how many): picks who moves best, and asks
 * them to. What must stay true: who is catching up is left alone, as is who knows no position to go on from.
 */
import { gatewaysIn } from '#shared/bus/node-state.ts';
import type { Roster } from '#shared/bus/roster.ts';
import type { Log } from '#shared/process/logger.ts';
import type { GatewayMetrics } from '#shared/process/metrics.ts';
import { depart, type Guest } from './departure.ts';
import {
  askedFewer,
  freshMemory,
  hasRoom,
  type Replica,
  returnMs,
  type ShedMemory,
  shed,
  tolerance,
} from './rebalancing.ts';

const everyMs = 1_000;
/** those asked in one second leave within this part of it */
const overMs = 800;

interface ShedderOptions {
  roster: Roster;
  /** this replica, as it is now */
  own: () => Omit<Replica, 'instance'>;
  /** of each transport, the oldest first */
  guests: () => readonly Iterable<Guest>[];
  /** 0: never */
  perSecond: number;
  log: Log;
  metrics: GatewayMetrics;
}

export class Shedder {
  readonly #options: ShedderOptions;
  readonly #abort = new AbortController();
  #memory: ShedMemory = freshMemory;
  /** when how many were asked to go */
  #asked: { at: number; count: number }[] = [];
  #timer: NodeJS.Timeout | undefined;

  constructor(options: ShedderOptions) {
    this.#options = options;
  }

  start(): void {
    if (this.#options.perSecond > 0) this.#timer = setInterval(() => this.#tick(), everyMs);
  }

  /** Those who have been asked to go and are still here stay. */
  stop(): void {
    clearInterval(this.#timer);
    this.#abort.abort();
  }

  /** connections that were asked to go lately, and may not have arrived elsewhere */
  get moving(): number {
    const since = performance.now() - returnMs;
    this.#asked = this.#asked.filter(({ at }) => at > since);
    return this.#asked.reduce((sum, { count }) => sum + count, 0);
  }

  /** Another replica has clearly fewer connections: a new client had better go there. */
  get crowded(): boolean {
    const fewest = Math.min(...this.#others().map((other) => (hasRoom(other) ? other.connections : Infinity)));
    return this.#options.own().connections > fewest + tolerance(fewest) / 2;
  }

  #tick(): void {
    const { roster, own, guests, perSecond, log, metrics } = this.#options;
    const now = performance.now();
    const self = roster.instance;
    const replicas = [...this.#others(), { instance: self, ...own() }];
    const was = this.#memory;
    const { count, memory } = shed(was, replicas, { self, now, perSecond });
    this.#memory = memory;
    if (memory.evening !== was.evening) log.info({ evening: memory.evening }, 'evening out connections has changed');
    if (memory.restsUntil > was.restsUntil)
      log.warn(
        { restMinutes: Math.round((memory.restsUntil - now) / 60_000) },
        'connections given to other replicas came back: does the balancer look for the replica with the fewest?',
      );
    if (count === 0) return;
    const leaving = pick(guests(), count);
    this.#memory = askedFewer(memory, count - leaving.length);
    this.#asked.push({ at: now, count: leaving.length });
    metrics.shed.inc(leaving.length);
    void depart(leaving, { overMs, why: 'others have room, come back', signal: this.#abort.signal });
  }

  #others(): Replica[] {
    const { roster } = this.#options;
    return gatewaysIn(roster.nodes())
      .filter(({ instance }) => instance !== roster.instance)
      .map(({ instance, state }) => ({ ...state, instance }));
  }
}

/**
 * Up to `count` of those who may go, the oldest first: nobody is asked twice while others have not been. And a balancer that was
 * reloaded knows only those who came since, so that it would send one of these back where it just was.
 */
function pick(sources: readonly Iterable<Guest>[], count: number): Guest[] {
  const found = sources.flatMap((guests) => {
    const oldest: Guest[] = [];
    for (const guest of guests) {
      if (oldest.length === count) break;
      if (guest.resumes && isLive(guest)) oldest.push(guest);
    }
    return oldest;
  });
  return found.sort((a, b) => a.openedAt - b.openedAt).slice(0, count);
}

function isLive({ outlet }: Guest): boolean {
  if (!outlet.open || outlet.queuedBytes > 0) return false;
  for (const { state } of outlet.subscriptions) if (state !== 'live') return false;
  return true;
}
