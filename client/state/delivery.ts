/** The deliveries and states that the state machine sends to a subscription of the application. */
import type { ChangeFrame, ResyncReason, Row } from '../../shared/wire.ts';

/**
 * - `offline`: not connected
 * - `catching-up`: connected, but rows or changes up to the present are still missing
 * - `live`: complete; changes arrive as they are committed
 * - `stale`: was live, but for some seconds nothing has confirmed that changes can still arrive
 * - `ended`: closed, or refused by the server
 */
export type SubscriptionState = 'offline' | 'catching-up' | 'live' | 'stale' | 'ended';

/** One message of the state machine to a subscription of the application. */
export type Delivery =
  /**
   * every row that the query admits; these rows replace all rows and changes that were delivered before. `key`: the
   * columns of the primary key; null if the server did not send them
   */
  | { kind: 'snapshot'; rows: readonly Row[]; key: readonly string[] | null }
  | { kind: 'change'; change: ChangeFrame }
  /** all changes up to this position have been delivered */
  | { kind: 'position'; pos: string }
  /**
   * changes are missing. If the subscription asked for a snapshot, a snapshot follows; otherwise the changes from
   * now on
   */
  | { kind: 'resync'; reason: ResyncReason }
  /**
   * if the state is `stale`, `since` is the time of the server's last confirmation, in ms on the state machine's clock
   */
  | { kind: 'state'; state: SubscriptionState; since?: number }
  /** the subscription has ended */
  | { kind: 'error'; code: string; message: string };

/** The error of a live query that has more rows than its `maxRows`. */
export function tooManyRows(maxRows: number): { code: string; message: string } {
  return { code: 'TOO_MANY_ROWS', message: `there are more than ${maxRows} rows: narrow the filter, or raise maxRows` };
}
