/**
 * The order in which clients' messages are handled, so that no client's messages hold up changes.
 * Each connection has a small credit of time of the event loop, which it regains slowly. While a
 * connection has credit, its messages are handled at once. Connections without credit wait in turn:
 * one message of each is handled at a time, and all of these connections together get a fifth of the
 * event loop. Messages of a client that does not read its answers wait too, and so do messages that
 * follow a token which is being checked. The gateway reads nothing from a connection that waits, so
 * its queue holds only messages that had already arrived.
 */
import type { Connection } from './connection.ts';

const sliceMs = 2;
const everyMs = 10;

interface Waiting {
  readonly connection: Connection;
  readonly messages: Buffer[];
}

export class Inbox {
  readonly #handle: (connection: Connection, message: Buffer) => void;
  readonly #maxQueueBytes: number;
  /** the connection whose turn is next comes first */
  readonly #waiting = new Map<Connection, Waiting>();
  #timer: NodeJS.Timeout | undefined;

  constructor(options: { maxQueueBytes: number; handle: (connection: Connection, message: Buffer) => void }) {
    this.#handle = options.handle;
    this.#maxQueueBytes = options.maxQueueBytes;
  }

  receive(connection: Connection, message: Buffer): void {
    const waiting = this.#waiting.get(connection);
    if (waiting) waiting.messages.push(message);
    else if (connection.hasCredit && this.#isReady(connection)) this.#handleOne(connection, message);
    else {
      this.#waiting.set(connection, { connection, messages: [message] });
      connection.ws.pause();
      this.#timer ??= setTimeout(this.#turn, everyMs);
    }
  }

  /** Called when the connection has closed. */
  forget(connection: Connection): void {
    this.#waiting.delete(connection);
  }

  stop(): void {
    clearTimeout(this.#timer);
    this.#waiting.clear();
  }

  #isReady({ outlet, isBusy }: Connection): boolean {
    return !isBusy && outlet.queuedBytes <= this.#maxQueueBytes;
  }

  #handleOne(connection: Connection, message: Buffer): number {
    // CPU time of this thread, so that a client does not pay for other threads and processes
    const before = process.threadCpuUsage();
    this.#handle(connection, message);
    const { user, system } = process.threadCpuUsage(before);
    const ms = (user + system) / 1_000;
    connection.spendCredit(ms);
    return ms;
  }

  readonly #turn = (): void => {
    let spentMs = 0;
    // each connection gets one turn at most: a connection with more messages goes to the end
    for (let left = this.#waiting.size; left > 0 && spentMs < sliceMs; left--) {
      const [waiting] = this.#waiting.values();
      if (!waiting) break;
      const { connection, messages } = waiting;
      this.#waiting.delete(connection);
      if (!connection.outlet.open) continue;
      if (this.#isReady(connection)) spentMs += this.#handleOne(connection, messages.shift()!);
      if (messages.length > 0) this.#waiting.set(connection, waiting);
      else connection.ws.resume();
    }
    // one message can take longer than a slice, so the pause grows with the time spent
    const pauseMs = Math.max(everyMs, (spentMs * everyMs) / sliceMs);
    this.#timer = this.#waiting.size > 0 ? setTimeout(this.#turn, pauseMs) : undefined;
  };
}
