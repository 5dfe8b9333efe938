/**
 * Ephemeral messages between the processes of one log: the status of each process, and operators' requests. Every
 * process receives every message, including its own. Messages are not stored: messages that are sent while the bus does
 * not work are lost. There are two implementations, and one test suite tests both.
 */
export interface Bus {
  /** Sends a message, which must be plain JSON and may be lost. Never throws. */
  send(message: object): void;
  /**
   * Calls `listener` with each message. A message may come from another version of Plank, so the listener must validate
   * it. Returns a function that stops the calls.
   */
  listen(listener: (message: unknown) => void): () => void;
  stop(): Promise<void>;
}

/** The bus within one process, for embedded mode. */
export class LocalBus implements Bus {
  readonly #listeners = new Set<(message: unknown) => void>();

  send(message: object): void {
    const text = JSON.stringify(message);
    // Each listener gets a copy of the message, and gets it later, as over a network.
    setImmediate(() => {
      for (const listener of this.#listeners) listener(JSON.parse(text));
    });
  }

  listen(listener: (message: unknown) => void): () => void {
    this.#listeners.add(listener);
    return () => this.#listeners.delete(listener);
  }

  async stop(): Promise<void> {
    this.#listeners.clear();
  }
}
