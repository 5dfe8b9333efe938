/**
 * The rows of one table that a row query admits, with the columns that it sends: what a change does to these rows,
 * and how an image is sent. An update can move a row in or out, so the filter judges the old image and the new image.
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

/** The channel of a view, as table-index.ts needs it. */
export interface Judging {
  readonly live: readonly unknown[];
  /** matches in the batch that the hub is delivering */
  readonly pending: Match[];
  /** why a change in that batch could not be judged, so that no later change was judged; null: all were judged */
  undecodable: Undecodable | null;
}

export class RowView<C extends Judging = Judging> {
  readonly query: RowQuery;
  readonly channel: C;
  readonly #columns: ReadonlySet<string> | null;
  /** null: every column may be read, so every change of a row is sent */
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

/** by list: users under one policy have the same list, and a set for each of them would take more than the rest */
const setsOf = new WeakMap<readonly string[], ReadonlySet<string>>();

function setOf(names: readonly string[]): ReadonlySet<string> {
  let set = setsOf.get(names);
  if (!set) setsOf.set(names, (set = new Set(names)));
  return set;
}

/** Whether an update changed none of these columns. False where a partial image leaves it open. */
function leavesAsTheyWere({ oldImage, newImage }: Change, columns: ReadonlySet<string>): boolean {
  const before = project(oldImage!, columns);
  const after = before && project(newImage!, columns);
  return before !== null && after !== null && before.equals(after);
}
