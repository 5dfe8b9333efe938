/**
 * The rows of one table that a row query admits, with the columns of the query. A view decides which effect a change
 * has on these rows, and which part of an image is sent. An update can move a row into the view or out of it, so the
 * filter judges the old image and the new image.
 */
import { actions, isPartial } from '#shared/log/batch.ts';
import type { Effect } from '#shared/wire.ts';
import type { Change } from './change.ts';
import { project } from './projection.ts';
import type { Undecodable } from './ring.ts';
import type { RowQuery } from './row-query.ts';

/** A change with its effect on the rows of a view. */
export interface Match {
  change: Change;
  effect: Effect;
}

/** The part of a view's channel that table-index.ts needs. */
export interface Judging {
  readonly live: readonly unknown[];
  /** the matches so far in the batch that the hub is delivering */
  readonly pending: Match[];
  /**
   * why a change in the batch that the hub is delivering could not be judged; null: all changes were judged. Changes
   * after that change were not judged.
   */
  undecodable: Undecodable | null;
}

export class RowView<C extends Judging = Judging> {
  readonly query: RowQuery;
  readonly channel: C;
  readonly #columns: ReadonlySet<string> | null;
  /** the columns that may be read; null: all columns, so every update of a row is sent */
  readonly #readable: ReadonlySet<string> | null;

  constructor(query: RowQuery, channel: C) {
    this.query = query;
    this.channel = channel;
    this.#columns = query.columns && setOf(query.columns);
    this.#readable = query.readable && setOf(query.readable);
  }

  /** Null: the change has no effect on the rows that the view shows. Throws ImageError. */
  effectOf(change: Change): Effect | null {
    if (change.action === actions.truncate) return 'remove';
    const { filter } = this.query;
    const before = change.oldImage !== null && (filter === null || filter.admits(change.oldRow!));
    const after = change.newImage !== null && (filter === null || filter.admits(change.newRow!));
    if (!after) return before ? 'remove' : null;
    if (!before) return 'add';
    return this.#readable !== null && leavesAsTheyWere(change, this.#readable) ? null : 'change';
  }

  /** The image's columns that the view sends; null: the image lacks one of them. Throws ImageError. */
  project(image: Buffer): Buffer | null {
    return this.#columns ? project(image, this.#columns) : isPartial(image) ? null : image;
  }
}

/** sets by list of names: users under one policy share the list, and a Set for each view would take much memory */
const setsOf = new WeakMap<readonly string[], ReadonlySet<string>>();

function setOf(names: readonly string[]): ReadonlySet<string> {
  let set = setsOf.get(names);
  if (!set) setsOf.set(names, (set = new Set(names)));
  return set;
}

/** Whether an update changed none of these columns. False if a partial image lacks one of the columns. */
function leavesAsTheyWere({ oldImage, newImage }: Change, columns: ReadonlySet<string>): boolean {
  const before = project(oldImage!, columns);
  const after = before && project(newImage!, columns);
  return before !== null && after !== null && before.equals(after);
}
