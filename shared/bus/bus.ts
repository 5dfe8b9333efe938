/**
 * Ephemeral messages between the processes of one log: the status of each process, and operators' requests. Every
 * process receives every message, its own too. Messages are not stored: while the bus does not work, they are lost.
 * Two implementations, one contract suite.
 */
export interface Bus {
  /** Never throws; the message may be lost. It must be plain JSON. */
  send(message: object): void;
  /** Messages may come from another version of Plank, so validate them. Returns a function that stops listening. */
  listen(listener: (message: unknown) => void): () => void;
  stop(): Promise<void>;
}

/** Within one process, for embedded mode. */
export class LocalBus implements Bus {
  readonly #listeners = new Set<(message: unknown) => void>();

  send(message: object): void {
    const text = JSON.stringify(message);
    // delivered later, and as a copy, as over a network
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
