/**
 * The present: the position that this gateway has reached, with the log that leads to it, in memory
 * (the ring) and in history. The hub moves it; cursors that are catching up read towards it and
 * wait for it.
 */
import type { Batch } from '#shared/log/batch.ts';
import type { Catalog } from '../catalog/catalog.ts';
import { Ring } from '../channels/ring.ts';
import { readable } from './former-images.ts';
import { HeldPages } from './held-pages.ts';
import type { History } from './history.ts';

export class Present {
  epoch = 0;
  seq = 0;
  readonly ring: Ring;
  readonly history: History;
  /** as much as the ring may keep */
  readonly heldPages: HeldPages;
  readonly #catalog: Catalog;
  /** cursors that wait for the next batch */
  readonly #waits = new Set<() => void>();

  constructor({ catalog, history, ringBytes }: { catalog: Catalog; history: History; ringBytes: number }) {
    this.#catalog = catalog;
    this.history = history;
    this.ring = new Ring(ringBytes);
    this.heldPages = new HeldPages(ringBytes);
  }

  /**
   * The batch without columns that were excluded since. Every batch that does not come from the
   * ring must pass here.
   */
  readable(batch: Batch): Batch {
    return readable(batch, this.#catalog.former);
  }

  /** Columns were excluded: batches in memory may still hold them. */
  excludeColumns(): void {
    this.ring.replace((batch) => this.readable(batch));
  }

  /** Calls `wake` with each batch that is delivered; the answer ends that. */
  onNextBatch(wake: () => void): () => void {
    this.#waits.add(wake);
    return () => void this.#waits.delete(wake);
  }

  /** A batch was delivered. */
  wakeWaiting(): void {
    for (const wake of this.#waits) wake();
  }
}
