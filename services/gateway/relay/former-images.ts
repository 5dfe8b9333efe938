/**
 * Removes excluded columns from changes that were captured before the exclusion. Invariant: every
 * change that a gateway reads from the fan-out or the log passes through here, and so does every
 * batch in memory when the gateway learns of an exclusion.
 */
import { type Batch, type BatchReader, isBreak, mapTexts, type Texts } from '#shared/log/batch.ts';
import type { Former } from '../catalog/catalog.ts';
import { project } from '../channels/projection.ts';
import { ImageError } from '../filter/row-filter.ts';

/** The batch without excluded columns. Returns the same object if nothing has to be removed. */
export function readable(batch: Batch, former: ReadonlyMap<number, Former>): Batch {
  if (former.size === 0) return batch;
  return mapTexts(batch, (change) => {
    // the event of changed policies has no image
    const table = isBreak(change.action) ? undefined : former.get(change.relation);
    return table !== undefined && BigInt(change.xid) < table.xid ? readableTexts(change, table) : null;
  });
}

function readableTexts(change: BatchReader, { columns, key }: Former): Texts | null {
  const before: Texts = {
    key: textAt(change, change.keyStart, change.keyEnd),
    new: textAt(change, change.newStart, change.newEnd),
    old: textAt(change, change.oldStart, change.oldEnd),
  };
  const after: Texts = {
    key: key ? before.key : null,
    new: imageOf(before.new, columns),
    old: imageOf(before.old, columns),
  };
  const isSame =
    after.key === before.key && after.new?.length === before.new?.length && after.old?.length === before.old?.length;
  return isSame ? null : after;
}

function textAt({ buffer }: BatchReader, start: number, end: number): Buffer | null {
  return end < start ? null : buffer.subarray(start, end);
}

const empty = Buffer.from('{}');
const space = 0x20;

/**
 * The image with only the members that clients may read. The result is never longer than the
 * image. A malformed image becomes an empty object.
 */
function imageOf(image: Buffer | null, columns: ReadonlySet<string>): Buffer | null {
  if (!image) return null;
  // the leading space of a partial image stays (shared/log/batch.ts)
  const lead = image[0] === space ? 1 : 0;
  try {
    const kept: Buffer | null = project(image.subarray(lead), columns);
    return kept && lead ? Buffer.concat([image.subarray(0, lead), kept]) : kept;
  } catch (error) {
    if (!(error instanceof ImageError)) throw error;
    return empty;
  }
}
