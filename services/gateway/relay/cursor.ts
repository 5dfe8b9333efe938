/**
 * A cursor: one client's place in the log, on one channel. It owns catching up.
 *
 *   catching-up  not live. The cursor reads on from its seq at the client's pace (catch-up.ts), and
 *                goes live when it reaches the present; or it waits for its owner to call `catchUp`.
 *                New cursors begin in this state. A live cursor returns to it by `pause`, or when
 *                its outlet holds more unsent bytes than the bound (`fallBehind`), so that the
 *                outlet's memory stops growing.
 *   live         a live member of its channel: the hub writes each batch as it comes.
 *   ended        the cursor never sends again.
 */
import type { AlreadySeen } from '../channels/already-seen.ts';
import type { Channel, Member } from '../channels/channel.ts';
import { CatchUp, type CatchUpDeps, type Interruption } from './catch-up.ts';
import type { Outlet } from './outlet.ts';
import type { SetGuard } from './sets.ts';

/** The cursor reports to its owner: a subscription, or a client in plain mode. */
export interface CursorOwner {
  /** Called each time the cursor reaches the present. */
  onLive?: () => void;
  /** The cursor cannot go on. It sends nothing more until the owner calls `catchUp`. */
  onInterrupted: (reason: Interruption['reason'], after: Interruption['after']) => void;
  /** Called when the channel's table was altered, or its policies changed. */
  onAltered?: (why: 'shape' | 'access') => void;
}

export interface CursorDeps extends CatchUpDeps {
  /** called when the channel has no member left */
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
   * the client keeps rows; a change of the table's shape makes them invalid, even if the cursor
   * reads that change from history
   */
  keepsRows = false;
  /** the sets that the channel's filters compare with: history in which one of them changes cannot be sent under them */
  guards: readonly SetGuard[] = [];
  channel: Channel<Cursor>;
  readonly outlet: Outlet;
  readonly owner: CursorOwner;
  readonly #deps: CursorDeps;
  /** the run in progress; null: the cursor is live, has ended, or waits for its owner */
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
   * the changes that a snapshot as of `from` contains. Resolves when the cursor is live or
   * interrupted, when the client is gone, or when the run was cancelled. Never rejects.
   */
  async catchUp(from: number, alreadySeen: AlreadySeen | null = null): Promise<void> {
    this.#cancelRun();
    const run = new CatchUp(this.#deps, this, alreadySeen);
    this.#run = run;
    this.state = 'catching-up';
    this.seq = from;
    if (this.began < 0) this.began = from;
    const interruption = await run.run();
    // checked after the await: other work may have cancelled the run in the same turn in which it ended
    if (this.#run !== run) return;
    this.#run = null;
    if (interruption && this.outlet.open) this.owner.onInterrupted(interruption.reason, interruption.after);
  }

  /** From now on, the hub writes each batch to the cursor. */
  goLive(): void {
    this.#run = null;
    this.state = 'live';
    if (this.began < 0) this.began = this.#deps.present.seq;
    this.channel.enter(this);
    this.owner.onLive?.();
  }

  /** Sends nothing until `catchUp`. */
  pause(): void {
    if (this.state === 'live') this.seq = this.#deps.present.seq;
    this.channel.leave(this);
    this.state = 'catching-up';
    this.#cancelRun();
  }

  /** Stops being live: the cursor reads on at the client's pace. Does nothing if the cursor is not live. */
  fallBehind(): void {
    if (this.state !== 'live') return;
    this.pause();
    void this.catchUp(this.#deps.present.seq);
  }

  /** Follows another channel from the cursor's current place. */
  move(channel: Channel<Cursor>): void {
    // leaving the same channel would remove it from the hub if it had no other member
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
