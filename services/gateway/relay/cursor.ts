/**
 * A cursor: one client's place in the log, on one channel. It owns catching up.
 *
 *   catching-up  not live: reads on from its seq at the client's pace (catch-up.ts) and goes live
 *                where it meets the present, or waits for its owner to call `catchUp`. New cursors
 *                begin here. A live one comes back here by `pause`, or when its outlet holds more
 *                unsent bytes than the bound (`fallBehind`), so that the outlet's memory stops
 *                growing.
 *   live         a live member of its channel: the hub writes each batch as it comes.
 *   ended        for good.
 */
import type { AlreadySeen } from '../channels/already-seen.ts';
import type { Channel, Member } from '../channels/channel.ts';
import { CatchUp, type CatchUpDeps, type Interruption } from './catch-up.ts';
import type { Outlet } from './outlet.ts';

/** What a cursor reports to: a subscription, or plain mode. */
export interface CursorOwner {
  /** Called each time that the cursor reaches the present. */
  onLive?: () => void;
  /** The cursor cannot go on. It sends nothing more until the owner calls `catchUp`. */
  onInterrupted: (reason: Interruption['reason'], after: Interruption['after']) => void;
  /** The channel's table was altered. */
  onAltered?: () => void;
}

export interface CursorDeps extends CatchUpDeps {
  /** the channel has no member left */
  forget: (channel: Channel) => void;
}

export class Cursor implements Member {
  slot = -1;
  state: 'catching-up' | 'live' | 'ended' = 'catching-up';
  /** the seq after which the cursor began, or began again; -1: it has not begun */
  began = -1;
  /** the last seq that was written; kept only while catching up */
  seq = 0;
  /**
   * the client keeps rows: another shape of the table makes them void, also where the change of
   * shape comes out of history
   */
  keepsRows = false;
  channel: Channel<Cursor>;
  readonly outlet: Outlet;
  readonly owner: CursorOwner;
  readonly #deps: CursorDeps;
  /** null: it is live, has ended, or waits for its owner */
  #run: CatchUp | null = null;

  constructor(channel: Channel<Cursor>, outlet: Outlet, owner: CursorOwner, deps: CursorDeps) {
    this.channel = channel;
    this.outlet = outlet;
    this.owner = owner;
    this.#deps = deps;
    channel.members.add(this);
  }

  /**
   * Reads on after the seq `from`, at the client's pace, until the cursor is live. `alreadySeen`:
   * what a snapshot as of `from` contains. Resolves when it is live, interrupted, or another run
   * has begun; never rejects.
   */
  async catchUp(from: number, alreadySeen: AlreadySeen | null = null): Promise<void> {
    this.#cancelRun();
    const run = new CatchUp(this.#deps, this, alreadySeen);
    this.#run = run;
    this.state = 'catching-up';
    this.seq = from;
    if (this.began < 0) this.began = from;
    const interruption = await run.run();
    // judged only here: other work may have cancelled the run in the turn in which it ended
    if (this.#run !== run) return;
    this.#run = null;
    if (interruption && this.outlet.open) this.owner.onInterrupted(interruption.reason, interruption.after);
  }

  /** Live from now on. */
  goLive(): void {
    this.#run = null;
    this.state = 'live';
    if (this.began < 0) this.began = this.#deps.present.seq;
    this.channel.enter(this);
    this.owner.onLive?.();
  }

  /** Sends nothing until `catchUp`. */
  pause(): void {
    this.channel.leave(this);
    this.state = 'catching-up';
    this.#cancelRun();
  }

  /** Where it is live, reads on at the client's pace. */
  fallBehind(): void {
    if (this.state !== 'live') return;
    this.pause();
    void this.catchUp(this.#deps.present.seq);
  }

  /** Follows another channel, from its place on. */
  move(channel: Channel<Cursor>): void {
    // leaving would forget a channel that has no other member
    if (channel === this.channel) return;
    this.#leaveChannel();
    this.channel = channel;
    channel.members.add(this);
    if (this.state === 'live') channel.enter(this);
  }

  end(): void {
    this.state = 'ended';
    this.#cancelRun();
    this.#leaveChannel();
  }

  #cancelRun(): void {
    this.#run?.cancel();
    this.#run = null;
  }

  #leaveChannel(): void {
    const { channel } = this;
    channel.leave(this);
    channel.members.delete(this);
    if (channel.members.size === 0) this.#deps.forget(channel);
  }
}
