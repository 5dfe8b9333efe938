/**
 * Collects the result of one event: the next state, which is replaced piece by piece, and the effects in the order in
 * which the shell runs them. The state object from before the event is not modified. This class has the steps that the
 * other files share; it decides nothing.
 */
import type { ClientFrame } from '../../shared/wire.ts';
import type { Delivery } from './delivery.ts';
import type { Effect, Link, ReportCode, State, World } from './model.ts';
import { jitter } from './reconnect.ts';
import { deliverStates, type Group, isRunning, type Output, type Request } from './stream.ts';

/** The name of the timer that requests a group's stream again is this prefix and the group's key. */
export const retryTimer = 'retry ';
/** The name of the timer that waits for a request's answer is this prefix and the request's id. */
export const answerTimer = 'answer ';

export class Transition implements Output {
  state: State;
  readonly effects: Effect[] = [];
  readonly world: World;

  constructor(state: State, world: World) {
    this.state = state;
    this.world = world;
  }

  set(part: Partial<State>): void {
    this.state = { ...this.state, ...part };
  }

  /** Sets the connection's state, and notifies the application. */
  move(link: Link): void {
    this.set({ link });
    this.effects.push({ type: 'notify', link });
  }

  send(frame: ClientFrame): void {
    this.effects.push({ type: 'send', frame });
  }

  setTimer(name: string, ms: number): void {
    this.effects.push({ type: 'set-timer', name, ms });
  }

  clearTimer(name: string): void {
    this.effects.push({ type: 'clear-timer', name });
  }

  report(message: string, code?: ReportCode): void {
    this.effects.push({ type: 'report', message, ...(code && { code }) });
  }

  // ------------------------------------------------------------------------------------------ groups

  /** Whether the client can send requests: it can after it has sent its hello. */
  get isConnected(): boolean {
    const { status } = this.state.link;
    return status === 'opening' || status === 'open';
  }

  /**
   * Stores a changed group and delivers its members' new states. If the group has no members and its stream has
   * ended, removes the group.
   */
  put(group: Group): void {
    const groups = new Map(this.state.groups);
    const isOver = group.members.size === 0 && (group.stream.phase === 'none' || group.stream.phase === 'retrying');
    if (isOver) groups.delete(group.key);
    else groups.set(group.key, deliverStates(group, this.#freshness, this));
    this.set({ groups });
  }

  putAll(change: (group: Group) => Group): void {
    for (const group of this.state.groups.values()) this.put(change(group));
  }

  /** Changes the group that waits for the answer to the request with this id. If there is none, does nothing. */
  putOfRequest(id: number, change: (group: Group) => Group): void {
    for (const group of this.state.groups.values()) {
      if ('request' in group.stream && group.stream.request === id) return this.put(change(group));
    }
  }

  /** Changes the group whose running stream has this channel. If there is none, does nothing. */
  putOfChannel(ch: string, change: (group: Group) => Group): void {
    for (const group of this.state.groups.values()) {
      if (isRunning(group.stream) && group.stream.ch === ch) return this.put(change(group));
    }
  }

  /** Null if there is no connection. `staleSince` is null while the server confirms that changes can arrive. */
  get #freshness(): { staleSince: number | null } | null {
    if (!this.isConnected) return null;
    const { link } = this.state;
    return { staleSince: link.status === 'open' && link.freshness.isStale ? link.freshness.freshAt : null };
  }

  // ------------------------------------------------------------------------------------------ output of streams

  request(request: Request): number {
    const id = this.state.requests + 1;
    this.set({ requests: id });
    if (request.type === 'unsubscribe') {
      this.send({ type: 'unsubscribe', id, ch: request.ch });
    } else {
      const { query, from, ch, snapshot } = request;
      // with the channel, the server notices if the client may see other rows now than up to `from`
      const channel = ch !== null && this.state.checksTokens ? { ch } : {};
      const begin = { ...(from === null ? {} : { from, ...channel }), ...(snapshot ? { snapshot } : {}) };
      this.send({ type: 'subscribe', id, ...query, ...begin });
    }
    this.setTimer(answerTimer + id, this.state.answerMs);
    return id;
  }

  /** After an error, also delivers the state `ended`, because an error ends a subscription. */
  deliver(member: number, delivery: Delivery): void {
    this.effects.push({ type: 'deliver', member, delivery });
    if (delivery.kind === 'error')
      this.effects.push({ type: 'deliver', member, delivery: { kind: 'state', state: 'ended' } });
  }

  retryLater(group: Group): void {
    this.setTimer(retryTimer + group.key, jitter(group.failures, this.world.random));
  }
}
