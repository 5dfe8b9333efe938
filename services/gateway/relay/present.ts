/**
 * The present: the position that this gateway has reached, and the changes up to this position, in
 * memory (the ring) and in history. The hub moves the position forward. Cursors that are catching
 * up read towards it, or wait for it to move.
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
  /** bounded by as many bytes as the ring */
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
   * The batch without columns that were excluded after its capture. Every batch that does not come
   * from the ring must pass through here.
   */
  readable(batch: Batch): Batch {
    return readable(batch, this.#catalog.former);
  }

  /** Called after columns were excluded. Removes them from the batches in memory. */
  excludeColumns(): void {
    this.ring.replace((batch) => this.readable(batch));
  }

  /** Calls `wake` after each delivered batch, until the returned function is called. */
  onNextBatch(wake: () => void): () => void {
    this.#waits.add(wake);
    return () => void this.#waits.delete(wake);
  }

  /** Called after a batch was delivered. */
  wakeWaiting(): void {
    for (const wake of this.#waits) wake();
  }
}
