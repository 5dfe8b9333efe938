/**
 * A subscription: one cursor of one client into the log, through one channel.
 *
 *   catching-up  behind: reads on from its cursor at its own pace, from the ring or history, and goes live where it meets
 *                the hub's seq. New ones begin here; live ones come here when their outlet holds more unsent bytes than
 *                the bound, and its memory stops growing.
 *   live         a member of its channel: gets each batch as it comes.
 *   ended        for good.
 *
 * Only the hub moves it (hub.ts).
 */

import type { Skip } from '../channels/already-seen.ts';
import type { Channel } from '../channels/tables-channel.ts';
import type { Outlet } from './outlet.ts';

/** Why a subscription cannot go on where it is: that is not kept, not of this history, or the table or its rows are not what they were. */
export type Gone = 'retention' | 'epoch' | 'shape' | 'rows';

export interface Listeners {
  /** arrived at the present, at the hub's seq; each time */
  onLive?: () => void;
  /**
   * Cannot go on; the subscription is neither live nor catching up until its owner says from where. `behind`: the seq behind which the
   * log can be followed, null: only from now on.
   */
  onGone: (why: Gone, behind: number | null) => void;
  /** The table is another one. */
  onAltered?: () => void;
}

export class Subscription {
  /** its place in the channel's live members, -1 where it is not live */
  slot = -1;
  state: 'catching-up' | 'live' | 'ended' = 'catching-up';
  /** the seq behind which it began, or began anew; -1: it has not */
  began = -1;
  /** the last seq that was written; kept only while catching up */
  cursor = 0;
  /** counts the runs of catching up, so that one that was overtaken notices */
  run = 0;
  /** what a snapshot already contains; null: nothing, or no longer */
  skip: Skip | null = null;
  /** its client keeps rows, which another shape of the table makes void, also where that comes out of history */
  keepsRows = false;
  /** ends its wait for the hub's next batch; null: it does not wait */
  wake: (() => void) | null = null;
  channel: Channel;
  readonly outlet: Outlet;
  readonly listeners: Listeners;

  constructor(channel: Channel, outlet: Outlet, listeners: Listeners) {
    this.channel = channel;
    this.outlet = outlet;
    this.listeners = listeners;
    outlet.add(this);
  }
}
