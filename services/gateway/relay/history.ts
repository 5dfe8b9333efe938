/**
 * Changes that are not in the ring, for cursors that catch up: read from Redis, else from the log
 * in Postgres. The database's work does not grow with the number of clients or with their pace, for
 * three reasons. Cursors at the same place share one read. The last pages from Postgres are kept
 * for cursors a little behind, which then go on from the same place. Only a few reads run at once.
 */
import { type Batch, packBatches } from '#shared/log/batch.ts';
import type { Tail } from '#shared/log/fanout.ts';
import { type Extent, type LogReader, PositionGone } from '#shared/log/log-reader.ts';
import type { GatewayMetrics } from '#shared/process/metrics.ts';
import { Limiter } from '../bounds/limiter.ts';

const pageChanges = 1_000;
const maxReads = 4;
/** bound on the pages that are kept; keeping them pays, as Postgres sorts a whole drain to read one page of it */
const maxPagesBytes = 16 * 1024 * 1024;

export class History {
  readonly #tail: Tail;
  readonly #reader: LogReader;
  readonly #metrics: GatewayMetrics;
  readonly #reads = new Map<string, Promise<Batch[]>>();
  readonly #limiter = new Limiter(maxReads);
  /** in order of use, the most recent last */
  readonly #pages: (readonly Batch[])[] = [];
  #pagesBytes = 0;
  #extent: Promise<Extent> | undefined;
  /** the fan-out's batches of this epoch are of another history: the log does not contain them; 0: no such epoch */
  distrusted = 0;

  constructor(deps: { tail: Tail; reader: LogReader; metrics: GatewayMetrics }) {
    this.#tail = deps.tail;
    this.#reader = deps.reader;
    this.#metrics = deps.metrics;
  }

  /**
   * Batches of the epoch that follow the seq `after` without a gap; the first batch may begin
   * before `after`. Resolves with no batches if `after` is the newest seq. Rejects with
   * PositionGone if the log does not continue after `after`. Other errors mean that neither source
   * answers with this epoch at the moment.
   */
  read(after: number, epoch: number): Promise<Batch[]> {
    const place = `${epoch}.${after}`;
    let read = this.#reads.get(place);
    if (!read) {
      read = this.#limiter.run(() => this.#read(after, epoch)).finally(() => this.#reads.delete(place));
      this.#reads.set(place, read);
    }
    return read;
  }

  /**
   * Rejects with PositionGone if the log ends before this seq. Resolves if Postgres does not
   * answer: a later call decides.
   */
  async mustExist(seq: number): Promise<void> {
    const extent = await this.#askExtent().catch(() => undefined);
    if (extent && seq > extent.newest) throw new PositionGone(`the log has not come to ${seq}`);
  }

  /** Whether Postgres answers at the moment. */
  async answers(): Promise<boolean> {
    return this.#askExtent().then(
      () => true,
      () => false,
    );
  }

  #askExtent(): Promise<Extent> {
    this.#extent ??= this.#reader.extent().finally(() => {
      this.#extent = undefined;
    });
    return this.#extent;
  }

  /**
   * A later seq from which a cursor can go on without missing a change: only canaries were purged
   * between `after` and this seq. Null: there is no such seq.
   */
  advancePast(after: number): Promise<number | null> {
    return this.#reader.advancePastCanaries(after);
  }

  async #read(after: number, epoch: number): Promise<Batch[]> {
    const recent = this.distrusted === epoch ? [] : await this.#tail.history(after).catch((): Batch[] => []);
    const first = recent[0];
    if (first && first.firstSeq <= after + 1 && first.epoch === epoch)
      return recent.filter((batch) => batch.epoch === epoch);
    const kept = this.#kept(after, epoch);
    if (kept) return kept;
    this.#metrics.fallbackReads.inc();
    const page = packBatches(epoch, await this.#reader.page(after, pageChanges));
    // The page may be of another epoch. Labelled with this epoch, its changes would get positions
    // that exist in no other replica.
    const now = await this.#reader.extent();
    if (now.epoch !== epoch) throw new Error(`the log is of epoch ${now.epoch}`);
    if (page.length > 0) {
      this.#pages.push(page);
      this.#pagesBytes += bytesOf(page);
    }
    while (this.#pagesBytes > maxPagesBytes) this.#pagesBytes -= bytesOf(this.#pages.shift()!);
    return page;
  }

  /** Batches after the seq, from a page that was read before. */
  #kept(after: number, epoch: number): Batch[] | undefined {
    const at = this.#pages.findIndex(
      (page) => page[0]!.epoch === epoch && page[0]!.firstSeq <= after + 1 && page.at(-1)!.lastSeq > after,
    );
    if (at < 0) return undefined;
    const [page] = this.#pages.splice(at, 1);
    this.#pages.push(page!);
    return page!.filter(({ lastSeq }) => lastSeq > after);
  }
}

function bytesOf(page: readonly Batch[]): number {
  return page.reduce((sum, { buffer }) => sum + buffer.buffer.byteLength, 0);
}
