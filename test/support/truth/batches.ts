// Owns made-up batches for tests without a database: consecutive changes of one table.

import type { Changes } from '#listener/sequencer.ts';
import { type Batch, BatchReader, batchesOf, type ChangeRow, packBatches } from '#shared/log/batch.ts';

export interface MadeUp {
  epoch?: number;
  /** the length of each new image's text */
  bytes?: number;
  relation?: number;
}

export function rowsOf(firstSeq: number, lastSeq: number, { bytes = 20, relation = 1 }: MadeUp = {}): ChangeRow[] {
  return Array.from({ length: lastSeq - firstSeq + 1 }, (_, i) => {
    const seq = String(firstSeq + i);
    return [seq, seq, '1700000000000', String(relation), 'I', seq, `"${'x'.repeat(bytes - 2)}"`, null, 't'];
  });
}

/** Changes that fit into one batch. */
export function batchOf(firstSeq: number, lastSeq: number, options: MadeUp = {}): Batch {
  const [batch, ...more] = packBatches(options.epoch ?? 1, rowsOf(firstSeq, lastSeq, options));
  if (batch === undefined || more.length > 0) throw new Error('this is not one batch');
  return batch;
}

/** The changes of a drain, as rows of the log. */
export function drainedRows({ firstSeq, packed }: Pick<Changes, 'firstSeq' | 'packed'>): ChangeRow[] {
  return batchesOf(1, firstSeq, packed, 0).flatMap(rowsIn);
}

/** The changes of a batch, read as gateways read them. */
export function rowsIn(batch: Batch): ChangeRow[] {
  const reader = new BatchReader(batch);
  const text = (start: number, end: number) => (end < start ? null : reader.buffer.toString('utf8', start, end));
  const rows: ChangeRow[] = [];
  while (reader.next()) {
    rows.push([
      String(reader.seq),
      reader.xid,
      String(reader.atMs),
      String(reader.relation),
      String.fromCharCode(reader.action),
      text(reader.keyStart, reader.keyEnd),
      text(reader.newStart, reader.newEnd),
      text(reader.oldStart, reader.oldEnd),
      reader.last ? 't' : 'f',
    ]);
  }
  return rows;
}
