/** The changes of a batch as objects, for channels that look into rows: images are parsed when first asked for, once for all. */
import { actions, type Batch, BatchReader } from '#shared/batch.ts';
import { type ParsedRow, parseImage } from './row-filter.ts';

export class Change {
  readonly seq: number;
  readonly relation: number;
  readonly action: number;
  readonly xid: bigint;
  /** the last change of its transaction */
  readonly last: boolean;
  /** the primary key as JSON; empty where there is none */
  readonly key: Buffer;
  readonly newImage: Buffer | null;
  readonly oldImage: Buffer | null;
  #newRow: ParsedRow | null | undefined;
  #oldRow: ParsedRow | null | undefined;

  constructor(reader: BatchReader) {
    const { buffer } = reader;
    this.seq = reader.seq;
    this.relation = reader.relation;
    this.action = reader.action;
    this.xid = BigInt(reader.xid);
    this.last = reader.last;
    this.key = buffer.subarray(reader.keyStart, Math.max(reader.keyStart, reader.keyEnd));
    this.newImage = reader.newEnd < reader.newStart ? null : buffer.subarray(reader.newStart, reader.newEnd);
    this.oldImage = reader.oldEnd < reader.oldStart ? null : buffer.subarray(reader.oldStart, reader.oldEnd);
  }

  get newRow(): ParsedRow | null {
    return (this.#newRow ??= this.newImage && parseImage(this.newImage.toString()));
  }

  get oldRow(): ParsedRow | null {
    return (this.#oldRow ??= this.oldImage && parseImage(this.oldImage.toString()));
  }
}

/** The row changes of a batch in the tables that `wants` admits, and where each transaction of the batch ends. */
export function changesOf(batch: Batch, wants: (relation: number) => boolean): Change[] {
  const changes: Change[] = [];
  const reader = new BatchReader(batch);
  while (reader.next()) if (reader.action !== actions.shape && wants(reader.relation)) changes.push(new Change(reader));
  return changes;
}

/** A table got another shape. */
interface ShapeChange {
  readonly seq: number;
  readonly relation: number;
  readonly xid: bigint;
}

/** Of a batch that many subscriptions walk through. */
const shapesIn = new WeakMap<Batch, readonly ShapeChange[]>();

/** Where in the batch tables got another shape. */
export function shapesOf(batch: Batch): readonly ShapeChange[] {
  const known = shapesIn.get(batch);
  if (known) return known;
  const shapes: ShapeChange[] = [];
  const reader = new BatchReader(batch);
  while (reader.next()) {
    const { seq, relation } = reader;
    if (reader.action === actions.shape) shapes.push({ seq, relation, xid: BigInt(reader.xid) });
  }
  shapesIn.set(batch, shapes);
  return shapes;
}
