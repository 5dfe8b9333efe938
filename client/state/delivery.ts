/** What a subscription of the application gets from the state machine. */
import type { ChangeFrame, ResyncReason, Row } from '../../shared/wire.ts';

/**
 * - `offline`: not connected
 * - `catching-up`: connected, but rows or changes up to the present are still missing
 * - `live`: complete, and changes arrive as they are committed
 * - `stale`: was live, but for some seconds nothing has confirmed that changes can still arrive
 * - `ended`: closed, or refused by the server
 */
export type SubscriptionState = 'offline' | 'catching-up' | 'live' | 'stale' | 'ended';

/** What a subscription of the application gets. */
export type Delivery =
  /**
   * every row that the query admits, instead of all that came before. `key`: the columns of the
   * primary key; null where unknown
   */
  | { kind: 'snapshot'; rows: readonly Row[]; key: readonly string[] | null }
  | { kind: 'change'; change: ChangeFrame }
  /** everything up to here has been delivered */
  | { kind: 'position'; pos: string }
  /**
   * changes are missing: a snapshot follows where one was asked for, otherwise the changes from now
   * on
   */
  | { kind: 'resync'; reason: ResyncReason }
  /** `since`: of `stale`, when the last confirmation came, in ms on the state machine's clock */
  | { kind: 'state'; state: SubscriptionState; since?: number }
  /** the subscription has ended */
  | { kind: 'error'; code: string; message: string };

/** The error of a live query with more rows than its `maxRows`. */
export function tooManyRows(maxRows: number): { code: string; message: string } {
  return { code: 'TOO_MANY_ROWS', message: `there are more than ${maxRows} rows: narrow the filter, or raise maxRows` };
}
