/**
 * The order in which what clients say is heard. A message is heard at once while its connection has credit: time of the event loop, of which
 * each connection has a little and gets more slowly. One that has used it up waits in turn with others like it, a message of each,
 * and all of them have a fifth of the event loop: so nobody's messages hold up changes. Nor is anything heard of a client
 * that does not read what it was answered. Whoever waits is not read from meanwhile, so that what waits is no more than had come.
 */
import type { Connection } from './connection.ts';

const sliceMs = 2;
const everyMs = 10;

interface Waiting {
  readonly connection: Connection;
  readonly messages: Buffer[];
}

export class Inbox {
  readonly #hear: (connection: Connection, message: Buffer) => void;
  readonly #maxQueueBytes: number;
  /** the next in turn is the first */
  readonly #waiting = new Map<Connection, Waiting>();
  #timer: NodeJS.Timeout | undefined;

  constructor(options: { maxQueueBytes: number; hear: (connection: Connection, message: Buffer) => void }) {
    this.#hear = options.hear;
    this.#maxQueueBytes = options.maxQueueBytes;
  }

  receive(connection: Connection, message: Buffer): void {
    const waiting = this.#waiting.get(connection);
    if (waiting) waiting.messages.push(message);
    else if (connection.hasCredit && this.#reads(connection)) this.#hearOne(connection, message);
    else {
      this.#waiting.set(connection, { connection, messages: [message] });
      connection.ws.pause();
      this.#timer ??= setTimeout(this.#turn, everyMs);
    }
  }

  /** It has gone. */
  forget(connection: Connection): void {
    this.#waiting.delete(connection);
  }

  stop(): void {
    clearTimeout(this.#timer);
    this.#waiting.clear();
  }

  #reads({ outlet }: Connection): boolean {
    return outlet.queuedBytes <= this.#maxQueueBytes;
  }

  #hearOne(connection: Connection, message: Buffer): number {
    // of this thread alone: what others on the machine take is nobody's here
    const began = process.threadCpuUsage();
    this.#hear(connection, message);
    const { user, system } = process.threadCpuUsage(began);
    const ms = (user + system) / 1_000;
    connection.took(ms);
    return ms;
  }

  readonly #turn = (): void => {
    let spentMs = 0;
    // each once: they go to the end
    for (let left = this.#waiting.size; left > 0 && spentMs < sliceMs; left--) {
      const [waiting] = this.#waiting.values();
      if (!waiting) break;
      const { connection, messages } = waiting;
      this.#waiting.delete(connection);
      if (!connection.outlet.open) continue;
      if (this.#reads(connection)) spentMs += this.#hearOne(connection, messages.shift()!);
      if (messages.length > 0) this.#waiting.set(connection, waiting);
      else connection.ws.resume();
    }
    // one message may take more than a slice
    const pauseMs = Math.max(everyMs, (spentMs * everyMs) / sliceMs);
    this.#timer = this.#waiting.size > 0 ? setTimeout(this.#turn, pauseMs) : undefined;
  };
}
