/** The bus through Redis pub/sub, on one Redis channel for each log. */
import type { Redis } from 'ioredis';
import type { Log } from '../process/logger.ts';
import { askRedis, commandTimeoutMs, openRedis } from '../redis.ts';
import { once } from '../waiting.ts';
import type { Bus } from './bus.ts';

/** what is sent comes back at once; a connection that has brought nothing for so long is dead, whatever TCP says */
const silentMs = 2_000;

export class RedisBus implements Bus {
  readonly #sending: Redis;
  readonly #hearing: Redis;
  readonly #channel: string;
  readonly #listeners = new Set<(message: unknown) => void>();
  /** when the first was sent of what has not come back */
  #unheardSince: number | undefined;

  constructor(url: string, options: { name: string; log: Log }) {
    // whoever reads or writes the stream says that Redis is silent; once is enough
    const quiet = options.log.child({}, { level: 'silent' });
    this.#channel = `{${options.name}}:bus`;
    this.#sending = openRedis(url, quiet);
    this.#hearing = openRedis(url, quiet);
    this.#hearing.on('ready', () => {
      askRedis(this.#hearing, commandTimeoutMs, () => this.#hearing.subscribe(this.#channel)).catch(() => {});
    });
    this.#hearing.on('message', (_channel: string, text: string) => {
      this.#unheardSince = undefined;
      let message: unknown;
      try {
        message = JSON.parse(text);
      } catch {
        return options.log.debug({ text: text.slice(0, 100) }, 'what came over the bus is not JSON');
      }
      for (const listener of this.#listeners) listener(message);
    });
  }

  send(message: object): void {
    const text = JSON.stringify(message);
    this.#unheardSince ??= performance.now();
    if (performance.now() - this.#unheardSince > silentMs) {
      this.#unheardSince = undefined;
      this.#hearing.disconnect(true);
    }
    askRedis(this.#sending, commandTimeoutMs, () => this.#sending.publish(this.#channel, text)).catch(() => {});
  }

  listen(listener: (message: unknown) => void): () => void {
    this.#listeners.add(listener);
    return () => this.#listeners.delete(listener);
  }

  readonly stop = once(async () => {
    this.#sending.disconnect();
    this.#hearing.disconnect();
  });
}
