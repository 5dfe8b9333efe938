/**
 * Searches history for changes of the sets that a cursor's filters compare with. The cursor has the present values of
 * the sets. If a set changed between the client's position and now, changes before that must not be judged with the
 * present values.
 */
import { PositionGone } from '#shared/log/log-reader.ts';
import type { Present } from './present.ts';
import type { SetGuard } from './sets.ts';

/**
 * Whether one of the sets may have changed after the seq `from`. If history cannot be read, the result is true.
 * Rejects with PositionGone if the log does not continue after `from`.
 */
export async function mayHaveChanged(guards: readonly SetGuard[], from: number, present: Present): Promise<boolean> {
  const since = Math.max(...guards.map((guard) => guard.since));
  for (let at = from; at < since; ) {
    const recent = present.ring.find(at + 1);
    const before = at;
    try {
      for (const batch of recent ? [recent.batch] : await present.history.read(at, present.epoch)) {
        if (guards.some((guard) => at < guard.since && guard.isChangedIn(batch, at))) return true;
        at = Math.max(at, batch.lastSeq);
      }
    } catch (error) {
      if (error instanceof PositionGone) throw error;
      return true;
    }
    if (at === before) return true;
  }
  return false;
}
