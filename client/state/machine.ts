/**
 * The brain of the SDK, pure: `reduce(state, event, world)` answers the next state and what is to be done. It owns one
 * connection's life and its groups (shared-stream.ts). No clock, randomness, socket or timer is used here.
 *
 *   idle        nothing has been subscribed to yet
 *   connecting  asks for the token, then for a socket
 *   opening     hello and the subscribes are sent; waits for `welcome`
 *   open        frames flow; silence is broken by a ping, and a silent peer is given up
 *   waiting     until the next attempt: full jitter, 0.5 to 20 s; after a `drain` that holds as long as the server said
 *   closed      for good: the application or a close code said so
 *
 * What must stay true: one socket at a time, events of an older one change nothing; the next attempt is never without a wait;
 * the waits grow until a connection was stable for 30 s; each subscription goes on from its own position.
 */
import type { ClientFrame, ServerFrame, WelcomeFrame } from '../../shared/wire.ts';
import { subjectKey } from '../values/canonical.ts';
import { beginFresh, type Freshness, judge, refresh } from './freshness.ts';
import { type Effect, type Event, type Link, limits, type State, type World } from './model.ts';
import { isFinal, jitter } from './reconnect.ts';
import {
  ask,
  createGroup,
  type Delivery,
  disconnect,
  type Group,
  isRunning,
  join,
  type Out,
  onChange,
  onError,
  onOk,
  onPosition,
  onResync,
  onRows,
  ProtocolViolation,
  part,
  tellStates,
} from './stream.ts';

export function reduce(state: State, event: Event, world: World): { state: State; effects: Effect[] } {
  const step = new Step(state, world);
  step.take(event);
  return { state: step.state, effects: step.effects };
}

const retryTimer = 'retry ';
const answerTimer = 'answer ';

/** One event's work: `state` is replaced piece by piece, the one it began with stays as it was. */
class Step implements Out {
  state: State;
  readonly effects: Effect[] = [];
  readonly #world: World;

  constructor(state: State, world: World) {
    this.state = state;
    this.#world = world;
  }

  take(event: Event): void {
    const { link } = this.state;
    switch (event.type) {
      case 'start':
        if (link.status === 'idle') this.#dial();
        return;
      case 'subscribe':
        return this.#subscribe(event);
      case 'unsubscribe':
        return this.#unsubscribe(event.member);
      case 'timer':
        return this.#timer(event.name);
      case 'wake':
        return this.#wake();
      case 'close':
        if (link.status !== 'closed') this.#end(null, 'closed by the application');
        return;
      default:
        if ('socket' in link && link.socket === event.socket) this.#ofSocket(event);
    }
  }

  #ofSocket(event: Extract<Event, { socket: number }>): void {
    const { link } = this.state;
    switch (event.type) {
      case 'token':
        if (link.status !== 'connecting' || link.hasSocket) return;
        this.#set({ link: { ...link, hasSocket: true, ...(event.token === undefined ? {} : { token: event.token }) } });
        this.effects.push({ type: 'connect', socket: event.socket });
        return;
      case 'token-failed':
        if (link.status !== 'connecting' || link.hasSocket) return;
        return this.#lost(`the token could not be had: ${event.message}`);
      case 'socket-open':
        if (link.status === 'connecting' && link.hasSocket) this.#hello(link.socket, link.token);
        return;
      case 'frame':
        if (link.status !== 'opening' && link.status !== 'open') return;
        try {
          return this.#frame(event.frame);
        } catch (error) {
          if (!(error instanceof ProtocolViolation)) throw error;
          this.effects.push({ type: 'report', message: error.message });
          return this.#lost();
        }
      case 'socket-failed':
        return this.#lost(event.message);
      case 'socket-close':
        if (isFinal(event.code)) this.#end(event.code, event.reason);
        else this.#lost(`closed with ${event.code}${event.reason ? `: ${event.reason}` : ''}`);
    }
  }

  // ------------------------------------------------------------------------------------------ the connection

  #dial(): void {
    const socket = this.state.sockets + 1;
    this.#set({ sockets: socket });
    this.#move({ status: 'connecting', socket, hasSocket: false });
    this.effects.push({ type: 'set-timer', name: 'connect', ms: limits.connectMs }, { type: 'get-token', socket });
  }

  #hello(socket: number, token: string | undefined): void {
    this.#move({ status: 'opening', socket });
    this.#send(token === undefined ? { type: 'hello' } : { type: 'hello', token });
    for (const group of this.state.groups.values()) this.#put(ask(group, this));
  }

  /** The socket is of no use any more: wait, then come back. */
  #lost(why = 'no answer'): void {
    const { link } = this.state;
    const { now, random } = this.#world;
    const isStable = link.status === 'open' && now - link.openedAt >= limits.stableMs;
    const attempts = isStable ? 0 : this.state.attempts;
    const isAsked = link.status === 'open' && link.returnAt !== null && now < link.returnAt + limits.drainMs;
    const returnAt = isAsked ? link.returnAt : null;
    const waitMs = returnAt === null ? jitter(attempts, random) : Math.max(0, returnAt - now);
    this.#disconnect();
    this.#set({ attempts: returnAt === null ? attempts + 1 : attempts });
    if (link.status !== 'open' && !this.state.isUnreachable) {
      this.#set({ isUnreachable: true });
      const message = `no connection to Plank (${why}), attempt ${this.state.attempts}; the next one in ${waitMs} ms, and so on`;
      this.effects.push({ type: 'report', code: 'UNREACHABLE', message });
    }
    this.#move({ status: 'waiting', waitMs });
    this.effects.push({ type: 'set-timer', name: 'reconnect', ms: waitMs });
    for (const group of this.state.groups.values()) this.#put(group);
  }

  #end(code: number | null, reason: string): void {
    this.#disconnect();
    this.effects.push({ type: 'clear-timer', name: 'reconnect' });
    this.#move({ status: 'closed', code, reason });
    if (code !== null) {
      const message = `the server closed the connection for good with ${code}${reason ? `: ${reason}` : ''}`;
      this.effects.push({ type: 'report', code: 'CLOSED', message });
    }
    for (const group of this.state.groups.values()) {
      for (const { id } of group.members.values()) this.#refuse(id);
    }
    this.#set({ groups: new Map() });
  }

  #disconnect(): void {
    for (const name of ['connect', 'liveness', 'stale']) this.effects.push({ type: 'clear-timer', name });
    for (const group of this.state.groups.values()) {
      if (group.stream.phase === 'pausing') this.effects.push({ type: 'clear-timer', name: retryTimer + group.key });
      if ('request' in group.stream) this.#answered(group.stream.request);
    }
    this.effects.push({ type: 'close-socket' });
    const groups = new Map([...this.state.groups].map(([key, group]) => [key, disconnect(group)]));
    this.#set({ groups });
  }

  #timer(name: string): void {
    const { link } = this.state;
    if (name === 'reconnect') {
      if (link.status === 'waiting') this.#dial();
    } else if (name === 'connect') {
      if (link.status === 'connecting' || link.status === 'opening') this.#lost();
    } else if (name === 'liveness') {
      this.#checkLiveness();
    } else if (name === 'stale') {
      this.#checkFreshness();
    } else if (name.startsWith(retryTimer)) {
      const group = this.state.groups.get(name.slice(retryTimer.length));
      if (group?.stream.phase === 'pausing') this.#put(ask(group, this));
    } else if (name.startsWith(answerTimer)) {
      this.#unanswered(Number(name.slice(answerTimer.length)));
    }
  }

  /**
   * Requests are answered at once, in order. So an answer may be behind all that was on its way before it, rows on a slow network; but
   * a replica that gives nothing more than signs of life instead is of no use.
   */
  #unanswered(request: number): void {
    const isWaiting = [...this.state.groups.values()].some(
      ({ stream }) => 'request' in stream && stream.request === request,
    );
    if (!isWaiting) return;
    const { link, answerMs } = this.state;
    const broughtAt = link.status === 'open' ? link.broughtAt : null;
    const restMs = broughtAt === null ? 0 : broughtAt + answerMs - this.#world.now;
    if (restMs > 0) return this.#awaitAnswer(request, restMs);
    this.effects.push({ type: 'report', message: `a request was not answered within ${answerMs} ms` });
    this.#lost();
  }

  #awaitAnswer(request: number, ms: number): void {
    this.effects.push({ type: 'set-timer', name: answerTimer + request, ms });
  }

  #answered(request: number): void {
    this.effects.push({ type: 'clear-timer', name: answerTimer + request });
  }

  /** A timer may come late (a hidden page, a sleeping machine): nobody is given up without a ping that had its time. */
  #checkLiveness(): void {
    const { link } = this.state;
    if (link.status !== 'open') return;
    const { now } = this.#world;
    if (link.deadAt !== null) {
      if (now >= link.deadAt) return this.#lost();
      return this.#watch(link.deadAt - now);
    }
    const silence = now - link.heardAt;
    if (silence < link.pingMs) return this.#watch(link.pingMs - silence);
    this.#probe(Math.max(link.heardAt + limits.silence * link.pingMs, now + limits.probeMs));
  }

  #probe(deadAt: number): void {
    const { link } = this.state;
    if (link.status !== 'open') return;
    this.#send({ type: 'ping' });
    this.#set({ link: { ...link, deadAt } });
    this.#watch(deadAt - this.#world.now);
  }

  #watch(ms: number): void {
    this.effects.push({ type: 'set-timer', name: 'liveness', ms });
  }

  #checkFreshness(): void {
    const { link, groups } = this.state;
    if (link.status !== 'open') return;
    const { now } = this.#world;
    const isWaitedFor = [...groups.values()].some(({ stream }) => stream.phase === 'live');
    this.#setFreshness(judge(link.freshness, now, isWaitedFor));
    if (this.#freshness?.staleSince === null) return this.#awaitPosition();
    // another replica may be no better off; whether this one hangs, a ping finds out
    const soon = now + limits.probeMs;
    this.#probe(Math.min(link.deadAt ?? soon, soon));
  }

  #awaitPosition(): void {
    const { link } = this.state;
    if (link.status !== 'open' || link.freshness.staleMs === null) return;
    const ms = Math.max(0, link.freshness.dueAt - this.#world.now);
    this.effects.push({ type: 'set-timer', name: 'stale', ms });
  }

  #setFreshness(freshness: Freshness): void {
    const { link } = this.state;
    if (link.status !== 'open') return;
    if (link.freshness.isStale === freshness.isStale) return this.#set({ link: { ...link, freshness } });
    this.#move({ ...link, freshness });
    if (!freshness.isStale) this.#awaitPosition();
    for (const group of this.state.groups.values()) this.#put(group);
  }

  #wake(): void {
    const { link } = this.state;
    const soon = this.#world.now + limits.probeMs;
    if (link.status === 'open') this.#probe(Math.min(link.deadAt ?? soon, soon));
    if (link.status !== 'waiting') return;
    this.effects.push({ type: 'clear-timer', name: 'reconnect' });
    this.#dial();
  }

  // ------------------------------------------------------------------------------------------ frames

  #frame(frame: ServerFrame): void {
    const { link } = this.state;
    if (link.status === 'open') {
      const { now } = this.#world;
      const broughtAt = frame.type === 'pong' || frame.type === 'pos' ? link.broughtAt : now;
      this.#set({ link: { ...link, heardAt: now, broughtAt, deadAt: null } });
      if (frame.type === 'change' || frame.type === 'pos' || frame.type === 'live')
        this.#setFreshness(refresh(link.freshness, now));
    }
    switch (frame.type) {
      case 'welcome':
        return this.#welcome(frame);
      case 'drain':
        if (this.state.link.status === 'open')
          this.#set({ link: { ...this.state.link, returnAt: this.#world.now + frame.after_ms } });
        return;
      case 'ok':
        this.#answered(frame.id);
        return this.#ofRequest(frame.id, (group) => onOk(group, frame.ch, frame.key, this));
      case 'error':
        if (frame.id !== undefined) this.#answered(frame.id);
        if (frame.code === 'ALREADY_SUBSCRIBED' && frame.id !== undefined && this.#merge(frame.id, frame.ch)) return;
        if (frame.id !== undefined) return this.#ofRequest(frame.id, (group) => onError(group, frame, this));
        if (frame.ch !== undefined) return this.#ofChannel(frame.ch, (group) => onError(group, frame, this));
        this.effects.push({ type: 'report', message: `${frame.code}: ${frame.message}` });
        return;
      case 'rows':
        return this.#ofChannel(frame.ch, (group) => onRows(group, frame, this));
      case 'change':
        return this.#ofChannel(frame.ch, (group) => onChange(group, frame, this));
      case 'live':
        return this.#ofChannel(frame.ch, (group) => onPosition(group, frame.pos, true, this));
      case 'resync':
        return this.#ofChannel(frame.ch, (group) => onResync(group, frame, this));
      case 'pos':
        for (const group of this.state.groups.values()) this.#put(onPosition(group, frame.pos, false, this));
        return;
      default: // pong, and what later versions add: a sign of life
    }
  }

  #welcome({ node, connection, ping_ms: pingMs, pos_ms: posMs }: WelcomeFrame): void {
    const { link } = this.state;
    if (link.status !== 'opening') return;
    const { now } = this.#world;
    const freshness = beginFresh(posMs, now);
    const times = { openedAt: now, heardAt: now, broughtAt: null, deadAt: null, returnAt: null, freshness };
    this.effects.push({ type: 'clear-timer', name: 'connect' });
    this.#set({ isUnreachable: false });
    this.#move({ status: 'open', socket: link.socket, node, connection: connection ?? null, pingMs, ...times });
    this.#watch(pingMs);
    this.#awaitPosition();
  }

  #ofRequest(id: number, change: (group: Group) => Group): void {
    for (const group of this.state.groups.values()) {
      if ('request' in group.stream && group.stream.request === id) return this.#put(change(group));
    }
  }

  /** The server knows better than `subjectKey` that two subjects are one: the members of one group go over to the other. */
  #merge(request: number, ch: string | undefined): boolean {
    const groups = [...this.state.groups.values()];
    const known = groups.find(({ stream }) => 'ch' in stream && stream.ch === ch);
    const doubled = groups.find(({ stream }) => stream.phase === 'asked' && stream.request === request);
    if (!known || !doubled) return false;
    const others = new Map(this.state.groups);
    others.delete(doubled.key);
    this.#set({ groups: others });
    let merged = known;
    for (const { attached: _, state: __, ...member } of doubled.members.values()) merged = join(merged, member, this);
    this.#put(merged);
    return true;
  }

  #ofChannel(ch: string, change: (group: Group) => Group): void {
    for (const group of this.state.groups.values()) {
      if (isRunning(group.stream) && group.stream.ch === ch) return this.#put(change(group));
    }
  }

  // ------------------------------------------------------------------------------------------ subscriptions

  #subscribe({ member, subject, from, snapshot, maxRows }: Extract<Event, { type: 'subscribe' }>): void {
    if (this.state.link.status === 'closed') return this.#refuse(member);
    const key = subjectKey(subject);
    let group = this.state.groups.get(key) ?? createGroup(key, subject);
    const joining = { id: member, snapshot, position: from, ...(maxRows === undefined ? {} : { maxRows }) };
    group = join(group, joining, this);
    this.#put(group.stream.phase === 'none' && this.#isUsable ? ask(group, this) : group);
  }

  #unsubscribe(member: number): void {
    for (const group of this.state.groups.values()) {
      if (group.members.has(member)) return this.#put(part(group, member, this));
    }
  }

  #refuse(member: number): void {
    const { link } = this.state;
    if (link.status !== 'closed') return;
    if (link.code !== null) {
      const message = `the server closed the connection with ${link.code}${link.reason ? `: ${link.reason}` : ''}`;
      this.deliver(member, { kind: 'error', code: 'CLOSED', message });
    }
    this.deliver(member, { kind: 'state', state: 'ended' });
  }

  /** null: not connected; else since when nothing has said that changes arrive, null where something does. */
  get #freshness(): { staleSince: number | null } | null {
    if (!this.#isUsable) return null;
    const { link } = this.state;
    return {
      staleSince: link.status === 'open' && link.freshness.isStale ? link.freshness.freshAt : null,
    };
  }

  get #isUsable(): boolean {
    const { status } = this.state.link;
    return status === 'opening' || status === 'open';
  }

  /** Keeps a group while it has members, or a stream that has yet to be left. */
  #put(group: Group): void {
    const groups = new Map(this.state.groups);
    const isOver = group.members.size === 0 && (group.stream.phase === 'none' || group.stream.phase === 'pausing');
    if (isOver) groups.delete(group.key);
    else groups.set(group.key, tellStates(group, this.#freshness, this));
    this.#set({ groups });
  }

  // ------------------------------------------------------------------------------------------ effects

  request(request: Parameters<Out['request']>[0]): number {
    const id = this.state.requests + 1;
    this.#set({ requests: id });
    if (request.type === 'unsubscribe') {
      this.#send({ type: 'unsubscribe', id, ch: request.ch });
    } else {
      const { subject, from, snapshot } = request;
      const begin = { ...(from === null ? {} : { from }), ...(snapshot ? { snapshot } : {}) };
      this.#send({ type: 'subscribe', id, ...subject, ...begin });
    }
    this.#awaitAnswer(id, this.state.answerMs);
    return id;
  }

  deliver(member: number, delivery: Delivery): void {
    this.effects.push({ type: 'deliver', member, delivery });
    if (delivery.kind === 'error' && this.state.link.status !== 'closed')
      this.effects.push({ type: 'deliver', member, delivery: { kind: 'state', state: 'ended' } });
  }

  pause(group: Group): void {
    const ms = jitter(group.failures, this.#world.random);
    this.effects.push({ type: 'set-timer', name: retryTimer + group.key, ms });
  }

  #send(frame: ClientFrame): void {
    this.effects.push({ type: 'send', frame });
  }

  #move(link: Link): void {
    this.#set({ link });
    this.effects.push({ type: 'notify', link });
  }

  #set(part: Partial<State>): void {
    this.state = { ...this.state, ...part };
  }
}
