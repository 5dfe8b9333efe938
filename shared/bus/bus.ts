/**
 * Ephemeral messages between the processes of one log: what each says of itself, and what operators ask of them. Every process
 * hears every message, its own too. Nobody resumes it: while the other side does not answer, messages are lost. Two
 * implementations, one contract suite.
 */
export interface Bus {
  /** Never throws; the message may be lost. It must be plain JSON. */
  send(message: object): void;
  /** What is heard may come from another version of Plank: look before you take. Returns how to stop listening. */
  listen(listener: (message: unknown) => void): () => void;
  stop(): Promise<void>;
}

/** Within one process, for embedded mode. */
export class LocalBus implements Bus {
  readonly #listeners = new Set<(message: unknown) => void>();

  send(message: object): void {
    const text = JSON.stringify(message);
    // as over a network: later, and a copy
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
