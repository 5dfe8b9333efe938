/**
 * Excluded columns in what was captured before they were excluded: the one place that takes them out. What must stay true: whatever a
 * gateway reads of a change has come through here, from the fan-out, from the log, or from memory when it learns of the exclusion.
 */
import { type Batch, type BatchReader, mapTexts, type Texts } from '#shared/log/batch.ts';
import type { Former } from '../catalog/catalog.ts';
import { project } from '../channels/projection.ts';
import { ImageError } from '../filter/row-filter.ts';

/** The batch without what must not be read any more: the same object, where there is nothing of it. */
export function readable(batch: Batch, former: ReadonlyMap<number, Former>): Batch {
  if (former.size === 0) return batch;
  return mapTexts(batch, (change) => {
    const table = former.get(change.relation);
    return table && BigInt(change.xid) < table.xid ? readableTexts(change, table) : null;
  });
}

function readableTexts(change: BatchReader, { columns, key }: Former): Texts | null {
  const was: Texts = {
    key: textAt(change, change.keyStart, change.keyEnd),
    new: textAt(change, change.newStart, change.newEnd),
    old: textAt(change, change.oldStart, change.oldEnd),
  };
  const is: Texts = { key: key ? was.key : null, new: imageOf(was.new, columns), old: imageOf(was.old, columns) };
  const isSame = is.key === was.key && is.new?.length === was.new?.length && is.old?.length === was.old?.length;
  return isSame ? null : is;
}

function textAt({ buffer }: BatchReader, start: number, end: number): Buffer | null {
  return end < start ? null : buffer.subarray(start, end);
}

const empty = Buffer.from('{}');
const space = 0x20;

/** With the members that may be read: it only gets shorter. What is no image says nothing. */
function imageOf(image: Buffer | null, columns: ReadonlySet<string>): Buffer | null {
  if (!image) return null;
  // a partial one stays that (shared/log/batch.ts)
  const lead = image[0] === space ? 1 : 0;
  try {
    const kept: Buffer | null = project(image.subarray(lead), columns);
    return kept && lead ? Buffer.concat([image.subarray(0, lead), kept]) : kept;
  } catch (error) {
    if (!(error instanceof ImageError)) throw error;
    return empty;
  }
}
