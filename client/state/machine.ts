/**
 * The SDK's state machine. `reduce(state, event, world)` is pure. It returns the next state, and the effects that the
 * shell (client.ts) must run. Clock, randomness, sockets and timers are outside.
 *
 *   state        what it means                              left by
 *   idle         no subscription yet                        start → connecting
 *   connecting   gets a token, then opens a socket          socket-open → opening
 *   opening      has sent hello and the subscribes          welcome → open
 *   open         frames arrive; pings test a silent server  see below
 *   waiting      waits until the next attempt               timer `reconnect`, wake → connecting
 *   closed       the client never connects again            nothing
 *
 *   connecting, opening, open → waiting   no token or socket, a socket that closed, no answer in
 *                                         time, a frame that breaks the protocol
 *   connecting, opening, open → closed    a socket that closed with a final code (reconnect.ts)
 *   open → open                           the token is renewed (renewal.ts)
 *   any → closed                          close
 *
 * connection.ts makes these moves. liveness.ts detects a server that no longer answers. frames.ts handles the server's
 * frames. stream.ts has the states of one subscription. What must stay true: events of an earlier socket change
 * nothing; each subscription continues from its own position.
 */
import { closeCodes } from '../../shared/wire.ts';
import { queryKey } from '../values/row-query.ts';
import { closeForGood, connect, endMember, openSocket, reconnectLater, sendHello } from './connection.ts';
import { onFrame } from './frames.ts';
import { checkAnswer, checkFreshness, checkLiveness, onWake } from './liveness.ts';
import type { Effect, Event, State, World } from './model.ts';
import { isFinal } from './reconnect.ts';
import { askToken, renew } from './renewal.ts';
import { addMember, createGroup, ProtocolViolation, removeMember, requestStream } from './stream.ts';
import { answerTimer, retryTimer, Transition } from './transition.ts';

export function reduce(state: State, event: Event, world: World): { state: State; effects: Effect[] } {
  const to = new Transition(state, world);
  onEvent(to, event);
  return { state: to.state, effects: to.effects };
}

function onEvent(to: Transition, event: Event): void {
  const { link } = to.state;
  switch (event.type) {
    case 'start':
      if (link.status === 'idle') connect(to);
      return;
    case 'subscribe':
      return subscribe(to, event);
    case 'unsubscribe':
      return unsubscribe(to, event.member);
    case 'timer':
      return onTimer(to, event.name);
    case 'wake':
      return onWake(to);
    case 'close':
      if (link.status !== 'closed') closeForGood(to, null, 'closed by the application');
      return;
    default:
      if ('socket' in link && link.socket === event.socket) onSocketEvent(to, event);
  }
}

function onSocketEvent(to: Transition, event: Extract<Event, { socket: number }>): void {
  const { link } = to.state;
  switch (event.type) {
    case 'token':
      return link.status === 'open' ? renew(to, event.token) : openSocket(to, event.token);
    case 'token-failed':
      if (link.status === 'open') return to.report(`the token could not be renewed: ${event.message}`);
      if (link.status !== 'connecting' || link.hasSocket) return;
      return reconnectLater(to, `no token: ${event.message}`);
    case 'socket-open':
      return sendHello(to);
    case 'frame':
      if (link.status !== 'opening' && link.status !== 'open') return;
      try {
        return onFrame(to, event.frame);
      } catch (error) {
        if (!(error instanceof ProtocolViolation)) throw error;
        to.report(error.message);
        return reconnectLater(to);
      }
    case 'socket-failed':
      return reconnectLater(to, event.message);
    case 'socket-close':
      return onClose(to, event);
  }
}

function onClose(to: Transition, { code, reason }: Extract<Event, { type: 'socket-close' }>): void {
  if (isFinal(code, to.state)) return closeForGood(to, code, reason);
  const { link, refusals } = to.state;
  if (code === closeCodes.unauthorized && link.status !== 'open') to.set({ refusals: refusals + 1 });
  reconnectLater(to, `closed with ${code}${reason ? `: ${reason}` : ''}`);
}

function onTimer(to: Transition, name: string): void {
  const { link, groups } = to.state;
  if (name === 'reconnect') {
    if (link.status === 'waiting') connect(to);
  } else if (name === 'connect') {
    if (link.status === 'connecting' || link.status === 'opening') reconnectLater(to);
  } else if (name === 'liveness') {
    checkLiveness(to);
  } else if (name === 'stale') {
    checkFreshness(to);
  } else if (name === 'renew') {
    askToken(to);
  } else if (name.startsWith(retryTimer)) {
    const group = groups.get(name.slice(retryTimer.length));
    if (group?.stream.phase === 'retrying') to.put(requestStream(group, to));
  } else if (name.startsWith(answerTimer)) {
    checkAnswer(to, Number(name.slice(answerTimer.length)));
  }
}

function subscribe(to: Transition, event: Extract<Event, { type: 'subscribe' }>): void {
  const { member, query, from, snapshot, maxRows } = event;
  if (to.state.link.status === 'closed') return endMember(to, member);
  const key = queryKey(query);
  const joining = { id: member, snapshot, position: from, ...(maxRows === undefined ? {} : { maxRows }) };
  const group = addMember(to.state.groups.get(key) ?? createGroup(key, query), joining, to);
  to.put(group.stream.phase === 'none' && to.isConnected ? requestStream(group, to) : group);
}

function unsubscribe(to: Transition, member: number): void {
  for (const group of to.state.groups.values()) {
    if (group.members.has(member)) return to.put(removeMember(group, member, to));
  }
}
