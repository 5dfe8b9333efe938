/**
 * With AUTH=jwt, limits how much one user or one address may do at all replicas together. The counts are in Redis
 * under leases. While Redis does not answer, each replica counts alone (shared/bus/shared-state-redis.ts).
 */
import type { Rate, Seat, SharedState } from '#shared/bus/shared-state.ts';
import type { GatewayConfig } from '#shared/process/config.ts';
import type { GatewayMetrics } from '#shared/process/metrics.ts';
import type { Viewer } from './viewer.ts';

type LimitSettings = Pick<
  GatewayConfig,
  'LIMIT_USER_CONNECTIONS' | 'LIMIT_ADDRESS_CONNECTIONS' | 'LIMIT_REQUESTS_PER_SECOND' | 'LIMIT_REFUSED_TOKENS'
>;

/** requests are counted over this time, so that a client may send twice the requests of one second at once */
const requestSeconds = 2;
const tokenSeconds = 60;
/** at most this many addresses are blocked at the same time: tokens from a blocked address are not checked */
const maxBlocked = 10_000;

/** A user or an address is above its limit. The message is for the client. */
export class TooMany extends Error {
  override readonly name = 'TooMany';
  readonly retryAfterS: number;

  constructor(what: string, waitMs: number) {
    const retryAfterS = Math.max(1, Math.ceil(waitMs / 1_000));
    super(`${what}: try again in ${retryAfterS} s`);
    this.retryAfterS = retryAfterS;
  }
}

/** the wait that a refused client is advised: only a hint, because a seat becomes free when a connection closes */
const seatWaitMs = 10_000;

export class Limits {
  readonly #settings: LimitSettings;
  readonly #shared: SharedState;
  readonly #metrics: Pick<GatewayMetrics, 'refused'>;
  readonly #requests: Rate;
  readonly #tokens: Rate;
  /** addresses whose tokens are not checked, and the time when this ends, on the clock of performance.now() */
  readonly #blocked = new Map<string, number>();

  constructor(settings: LimitSettings, shared: SharedState, metrics: Pick<GatewayMetrics, 'refused'>) {
    this.#settings = settings;
    this.#shared = shared;
    this.#metrics = metrics;
    const { LIMIT_REQUESTS_PER_SECOND: requests, LIMIT_REFUSED_TOKENS: tokens } = settings;
    this.#requests = shared.rate('requests', { points: requestSeconds * requests, seconds: requestSeconds });
    this.#tokens = shared.rate('tokens', { points: tokens, seconds: tokenSeconds });
  }

  /** Counts a connection of an address until the seat is left. Rejects with TooMany. */
  ofAddress(address: string): Promise<Seat> {
    const { LIMIT_ADDRESS_CONNECTIONS: max } = this.#settings;
    return this.#sit(
      `address:${address}`,
      max,
      'address_connections',
      `there are ${max} connections from this address`,
    );
  }

  /** Counts a connection of a user until the seat is left. Rejects with TooMany. */
  ofUser(user: string): Promise<Seat> {
    const { LIMIT_USER_CONNECTIONS: max } = this.#settings;
    return this.#sit(`user:${user}`, max, 'user_connections', `there are ${max} connections of this user`);
  }

  async #sit(name: string, max: number, reason: string, what: string): Promise<Seat> {
    const seat = await this.#shared.sit(name, max);
    if (seat) return seat;
    this.#metrics.refused.inc({ reason });
    throw new TooMany(what, seatWaitMs);
  }

  /** Counts a request over REST. Rejects with TooMany. */
  async countRequest({ user }: Viewer, address: string): Promise<void> {
    const waitMs = await this.#requests.use(user === null ? `address:${address}` : `user:${user}`);
    if (waitMs === 0) return;
    this.#metrics.refused.inc({ reason: 'requests' });
    throw new TooMany('there are too many requests', waitMs);
  }

  /** Throws TooMany if too many tokens of this address were refused. */
  mayTryToken(address: string): void {
    const waitMs = (this.#blocked.get(address) ?? 0) - performance.now();
    if (waitMs <= 0) return;
    this.#metrics.refused.inc({ reason: 'tokens' });
    throw new TooMany('too many tokens from this address were refused', waitMs);
  }

  /** Counts a token that was refused. Blocks the address if too many of its tokens were refused. */
  async countRefused(address: string): Promise<void> {
    const waitMs = await this.#tokens.use(address);
    if (waitMs === 0) return;
    if (this.#blocked.size >= maxBlocked) this.#blocked.delete(this.#blocked.keys().next().value!);
    this.#blocked.set(address, performance.now() + waitMs);
  }
}

/** Leaves the seat when the socket closes. */
export function leaveAtClose(
  seat: Seat,
  socket: { destroyed: boolean; once(event: 'close', done: () => void): unknown },
): void {
  if (socket.destroyed) seat.leave();
  else socket.once('close', () => seat.leave());
}
