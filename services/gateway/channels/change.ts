/**
 * The changes of a batch as objects, for channels whose filters read rows. An image is parsed on
 * first use. All channels share the parsed row.
 */
import { actions, type Batch, BatchReader, isBreak } from '#shared/log/batch.ts';
import { type ParsedRow, parseImage } from '../filter/row-filter.ts';

export class Change {
  readonly seq: number;
  readonly relation: number;
  readonly action: number;
  readonly xid: bigint;
  /** whether this is the last change of its transaction */
  readonly last: boolean;
  /** the primary key as JSON; empty: the change has none */
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

/** The row changes of a batch in the tables that `wants` admits. */
export function changesOf(batch: Batch, wants: (relation: number) => boolean): Change[] {
  const changes: Change[] = [];
  const reader = new BatchReader(batch);
  while (reader.next()) if (!isBreak(reader.action) && wants(reader.relation)) changes.push(new Change(reader));
  return changes;
}

/**
 * A change after which later changes reach clients in another way: the table's shape changed, its rows changed
 * without INSERT, UPDATE or DELETE, or its policies changed. A revocation has no table (relation 0).
 */
export interface Break {
  readonly seq: number;
  readonly relation: number;
  readonly xid: bigint;
  readonly why: 'shape' | 'rows' | 'access' | 'revoke';
  /** for `access` the table's policies, for `revoke` who is revoked; as JSON */
  readonly text: string;
}

const whys: Readonly<Record<number, Break['why']>> = {
  [actions.shape]: 'shape',
  [actions.rows]: 'rows',
  [actions.access]: 'access',
  [actions.revoke]: 'revoke',
};

/** breaks by batch; kept because many cursors read the same batch */
const breaksIn = new WeakMap<Batch, readonly Break[]>();

/** The breaks in a batch, in order. */
export function breaksOf(batch: Batch): readonly Break[] {
  const known = breaksIn.get(batch);
  if (known) return known;
  const breaks: Break[] = [];
  const reader = new BatchReader(batch);
  while (reader.next()) {
    const { seq, relation, action } = reader;
    const why = whys[action];
    if (why === undefined) continue;
    const text = reader.buffer.toString('utf8', reader.newStart, Math.max(reader.newStart, reader.newEnd));
    breaks.push({ seq, relation, xid: BigInt(reader.xid), why, text });
  }
  breaksIn.set(batch, breaks);
  return breaks;
}
