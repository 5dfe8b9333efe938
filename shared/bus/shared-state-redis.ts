/**
 * Shared state in Redis. Each process has a lease, which it renews. A seat belongs to the lease of its process, so the
 * seats of a killed process are free after `leaseMs`. Redis may lose all data. Then each process registers its seats
 * again at its next renewal.
 */
import { randomUUID } from 'node:crypto';
import type { Redis } from 'ioredis';
import { RateLimiterRedis } from 'rate-limiter-flexible';
import type { Log } from '../process/logger.ts';
import { askRedis, commandTimeoutMs, openRedis } from '../redis.ts';
import { every, once, withDeadlineOr } from '../waiting.ts';
import {
  LocalRate,
  LocalSeats,
  type Rate,
  type RateLimit,
  type Seat,
  type SharedState,
  waitLeft,
  waitOf,
} from './shared-state.ts';

const leaseMs = 15_000;
const renewMs = 5_000;
/** all seats are registered again this often, long before their keys expire */
const registerMs = 10 * 60_000;
const seatsTtlMs = 60 * 60_000;
/** how long a client waits until Redis has counted; if Redis is slower, this process counts alone for `aloneMs` */
const countMs = 250;
/** for this long, this process counts alone and sends Redis no request for a count */
const aloneMs = 1_000;

/**
 * Takes a seat. KEYS: the set of seats. ARGV: the seat, as "process/number"; the maximum; the prefix of leases; the
 * time to live of the set in ms. The script drops the seats of processes without a lease only if no seat is free.
 */
const sitScript = `
local taken = redis.call('scard', KEYS[1])
local max = tonumber(ARGV[2])
if taken >= max then
  local alive = {}
  for _, seat in ipairs(redis.call('smembers', KEYS[1])) do
    local process = string.match(seat, '^[^/]+')
    if alive[process] == nil then alive[process] = redis.call('exists', ARGV[3] .. process) == 1 end
    if not alive[process] then
      redis.call('srem', KEYS[1], seat)
      taken = taken - 1
    end
  end
end
if taken >= max then return 0 end
redis.call('sadd', KEYS[1], ARGV[1])
redis.call('pexpire', KEYS[1], ARGV[4])
return 1`;

type WithSit = Redis & { sit(key: string, seat: string, max: number, leases: string, ttlMs: number): Promise<number> };

export class RedisState implements SharedState {
  readonly #redis: WithSit;
  readonly #prefix: string;
  readonly #process = randomUUID();
  readonly #abort = new AbortController();
  readonly #own = new LocalSeats();
  /** every taken seat: the seat's member in Redis, and the key of its set */
  readonly #seats = new Map<string, string>();
  #lastSeat = 0;
  #registeredAt = Number.NEGATIVE_INFINITY;
  #aloneUntil = 0;
  readonly #renewing: Promise<void>;

  constructor(url: string, options: { name: string; log: Log }) {
    // This connection logs nothing about Redis: the connections for the stream already log when Redis does not answer.
    this.#redis = openRedis(url, options.log.child({}, { level: 'silent' })) as WithSit;
    this.#redis.defineCommand('sit', { numberOfKeys: 1, lua: sitScript });
    this.#prefix = `{${options.name}}:`;
    // The lease must come before any other command of the connection: the seats of a process without a lease count as
    // free.
    this.#redis.on('ready', () => void this.#renew().catch(() => {}));
    this.#renewing = every(
      renewMs,
      this.#abort.signal,
      () => this.#renew(),
      () => {},
    );
  }

  async keep(name: string, text: string, ttlMs: number): Promise<void> {
    await this.#ask(() => this.#redis.set(`${this.#prefix}once:${name}`, text, 'PX', ttlMs));
  }

  async take(name: string): Promise<string | null> {
    return await this.#ask(() => this.#redis.getdel(`${this.#prefix}once:${name}`));
  }

  async sit(name: string, max: number): Promise<Seat | null> {
    // this process counts its own seats even while Redis does not answer
    const own = this.#own.sit(name, max);
    if (!own) return null;
    const key = `${this.#prefix}seats:${name}`;
    const seat = `${this.#process}/${++this.#lastSeat}`;
    const free = () => {
      own.leave();
      if (this.#seats.delete(seat)) this.#ask(() => this.#redis.srem(key, seat)).catch(() => {});
    };
    // The seat is stored before Redis answers, because a renewal in the meantime must register this seat too.
    this.#seats.set(seat, key);
    const isTaken = await this.#count(() => this.#redis.sit(key, seat, max, this.#leases, seatsTtlMs));
    if (isTaken !== 0) return { leave: free };
    free();
    return null;
  }

  rate(name: string, limit: RateLimit): Rate {
    const alone = new LocalRate(name, limit);
    const shared = new RateLimiterRedis({
      storeClient: this.#redis,
      keyPrefix: `${this.#prefix}rate:${name}`,
      points: limit.points,
      duration: limit.seconds,
    });
    return {
      use: async (key) => (await this.#count(() => waitOf(shared.consume(key)))) ?? alone.use(key),
      waitMs: async (key) =>
        (await this.#count(async () => waitLeft(await shared.get(key), limit.points))) ?? alone.waitMs(key),
    };
  }

  readonly stop = once(async () => {
    this.#abort.abort();
    await this.#renewing;
    await this.#ask(() => this.#redis.del(`${this.#leases}${this.#process}`)).catch(() => {});
    this.#redis.disconnect();
  });

  get #leases(): string {
    return `${this.#prefix}lease:`;
  }

  #ask<T>(command: () => Promise<T>): Promise<T> {
    return askRedis(this.#redis, commandTimeoutMs, command);
  }

  /** Returns null if Redis did not answer in time. This process then counts alone for `aloneMs`. */
  async #count<T>(command: () => Promise<T>): Promise<T | null> {
    if (performance.now() < this.#aloneUntil) return null;
    try {
      return await withDeadlineOr(this.#ask(command), countMs, () => new Error('Redis is slow'));
    } catch {
      this.#aloneUntil = performance.now() + aloneMs;
      return null;
    }
  }

  /** Renews the lease. If the lease was gone, or if the last registration was long ago, registers all seats again. */
  async #renew(): Promise<void> {
    const before = await this.#ask(() => this.#redis.set(`${this.#leases}${this.#process}`, '1', 'PX', leaseMs, 'GET'));
    if (before !== null && performance.now() - this.#registeredAt < registerMs) return;
    const pipeline = this.#redis.pipeline();
    for (const [seat, key] of this.#seats) pipeline.sadd(key, seat).pexpire(key, seatsTtlMs);
    if (pipeline.length > 0) await this.#ask(() => pipeline.exec());
    this.#registeredAt = performance.now();
  }
}
