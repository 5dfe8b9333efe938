/** The bus over Redis pub/sub, with one Redis channel for each log. */
import type { Redis } from 'ioredis';
import type { Log } from '../process/logger.ts';
import { askRedis, commandTimeoutMs, openRedis } from '../redis.ts';
import { once } from '../waiting.ts';
import type { Bus } from './bus.ts';

/**
 * Each process receives its own messages at once. If a message has not come back after this time, the connection that
 * receives is dead.
 */
const silentMs = 2_000;

export class RedisBus implements Bus {
  readonly #sending: Redis;
  readonly #receiving: Redis;
  readonly #channel: string;
  readonly #listeners = new Set<(message: unknown) => void>();
  /** the time when the oldest message was sent that has not come back */
  #missingSince: number | undefined;

  constructor(url: string, options: { name: string; log: Log }) {
    // These connections log nothing about Redis: the connections for the stream already log when Redis does not answer.
    const quiet = options.log.child({}, { level: 'silent' });
    this.#channel = `{${options.name}}:bus`;
    this.#sending = openRedis(url, quiet);
    this.#receiving = openRedis(url, quiet);
    this.#receiving.on('ready', () => {
      askRedis(this.#receiving, commandTimeoutMs, () => this.#receiving.subscribe(this.#channel)).catch(() => {});
    });
    this.#receiving.on('message', (_channel: string, text: string) => {
      this.#missingSince = undefined;
      let message: unknown;
      try {
        message = JSON.parse(text);
      } catch {
        return options.log.debug({ text: text.slice(0, 100) }, 'a message on the bus is not JSON');
      }
      for (const listener of this.#listeners) listener(message);
    });
  }

  send(message: object): void {
    const text = JSON.stringify(message);
    this.#missingSince ??= performance.now();
    if (performance.now() - this.#missingSince > silentMs) {
      this.#missingSince = undefined;
      this.#receiving.disconnect(true);
    }
    askRedis(this.#sending, commandTimeoutMs, () => this.#sending.publish(this.#channel, text)).catch(() => {});
  }

  listen(listener: (message: unknown) => void): () => void {
    this.#listeners.add(listener);
    return () => this.#listeners.delete(listener);
  }

  readonly stop = once(async () => {
    this.#sending.disconnect();
    this.#receiving.disconnect();
  });
}
