/** What is said on one WebSocket of plank.v1: hello first, then requests, each answered by `ok` or `error`. */

import { parseExactJson } from '#shared/exact-json.ts';
import { closeCodes, formatPosition, type ServerFrame } from '#shared/wire.ts';
import { framed } from '../channels/framing.ts';
import { isSame, positionOf, Refused, wordsOf } from '../channels/row-query.ts';
import type { Connection } from './connection.ts';
import { type ClientMessage, parseClientMessage, type SubscribeMessage } from './messages.ts';
import { type Positions, positionEveryMs } from './positions.ts';
import { type Owner, Subscriber, type SubscriberDeps } from './subscription.ts';

const helloTimeoutMs = 5_000;
const maxSubscriptions = 100;
/** a client that got a change so short a time ago needs no position to see that changes arrive */
const justNowMs = 1_000;
const none: readonly never[] = [];

export interface SessionDeps extends SubscriberDeps {
  node: string;
  pingMs: number;
  positions: Positions;
}

export class Session implements Owner {
  readonly #connection: Connection;
  readonly #deps: SessionDeps;
  /**
   * A list, and made anew each time: most sessions have one or two, and a Map for each of them would weigh more than all else. By
   * `concat`, which makes it as long as it is; what `[...]` or `push` make is for 17 at first.
   */
  #subscribers: readonly Subscriber[] = none;
  #helloTimer: NodeJS.Timeout | undefined;
  /** of the last position that the client was told for all of its subscriptions */
  #toldSeq = -1;

  constructor(connection: Connection, deps: SessionDeps) {
    this.#connection = connection;
    this.#deps = deps;
    this.#helloTimer = setTimeout(() => connection.close(closeCodes.noHello, 'no hello came in time'), helloTimeoutMs);
  }

  receive(text: string): void {
    const message = parseClientMessage(text, parseExactJson);
    if ('error' in message) {
      if (message.id === undefined || this.#awaitsHello) this.#connection.close(closeCodes.malformed, message.error);
      else this.#send({ type: 'error', id: message.id, code: 'MALFORMED', message: message.error, retry: false });
      return;
    }
    if (this.#awaitsHello !== (message.type === 'hello')) {
      this.#connection.close(closeCodes.malformed, this.#awaitsHello ? 'hello comes first' : 'hello comes once');
      return;
    }
    try {
      this.#obey(message);
    } catch (error) {
      if (!(error instanceof Refused) || !('id' in message)) throw error;
      this.#send({
        type: 'error',
        id: message.id,
        code: error.code,
        message: error.message,
        retry: error.code === 'UNAVAILABLE',
      });
    }
  }

  /** Tells a quiet client how far it is, and by that, that changes can reach it. To be called on the rhythm that `welcome` names. */
  tick(now: number): void {
    const { hub, positions } = this.#deps;
    const { outlet } = this.#connection;
    // who has bytes to take yet sees by them that something comes
    if (this.#subscribers.length === 0 || !positions.areSaid || outlet.queuedBytes > 0) return;
    let seq = hub.seq;
    let isBusy = true;
    for (const { subscription, toldLive } of this.#subscribers) {
      const isLive = subscription.state === 'live';
      if (!isLive || now - subscription.channel.toldAt > justNowMs) isBusy = false;
      // its client has not noticed that it fell behind, and would take what it has not got for had
      if (!isLive && toldLive) seq = Math.min(seq, subscription.cursor);
    }
    if (isBusy || (seq < hub.seq && seq <= this.#toldSeq)) return;
    this.#toldSeq = seq;
    outlet.write(positions.frame(outlet.framing, seq));
  }

  /** Whatever it has subscribed to begins with rows or a position. */
  get resumes(): boolean {
    return !this.#awaitsHello;
  }

  /** The replica leaves, or has too many. */
  drain(afterMs: number): void {
    // nothing comes before `welcome`
    if (!this.#awaitsHello) this.#send({ type: 'drain', after_ms: afterMs });
  }

  end(): void {
    clearTimeout(this.#helloTimer);
    for (const subscriber of this.#subscribers) subscriber.end();
    this.#subscribers = [];
  }

  onEnded(subscriber: Subscriber): void {
    this.#subscribers = this.#subscribers.filter((other) => other !== subscriber);
  }

  get #awaitsHello(): boolean {
    return this.#helloTimer !== undefined;
  }

  #obey(message: ClientMessage): void {
    const { hub, node, pingMs } = this.#deps;
    switch (message.type) {
      case 'hello':
        clearTimeout(this.#helloTimer);
        this.#helloTimer = undefined;
        this.#send({
          type: 'welcome',
          node,
          connection: `${node}/${this.#connection.id}`,
          ping_ms: pingMs,
          pos_ms: positionEveryMs,
          pos: formatPosition(hub),
        });
        return;
      case 'subscribe':
        this.#subscribe(message);
        return;
      case 'unsubscribe': {
        const subscriber = this.#to(message.ch);
        if (!subscriber) throw new Refused('UNKNOWN_CHANNEL', `no subscription to ${JSON.stringify(message.ch)}`);
        subscriber.end();
        this.onEnded(subscriber);
        this.#send({ type: 'ok', id: message.id });
        return;
      }
      case 'ping':
        this.#send({ type: 'pong' });
    }
  }

  #subscribe(message: SubscribeMessage): void {
    const { catalog } = this.#deps;
    const { outlet } = this.#connection;
    const from = positionOf(message);
    const words = wordsOf(message, catalog);
    const same = this.#subscribers.find(({ channel }) => isSame(channel.words, words));
    if (same) {
      const { name } = same.channel;
      const error = { code: 'ALREADY_SUBSCRIBED', message: `already subscribed to ${name}`, retry: false } as const;
      this.#send({ type: 'error', id: message.id, ch: name, ...error });
      return;
    }
    if (this.#subscribers.length >= maxSubscriptions) {
      throw new Refused('TOO_MANY_SUBSCRIPTIONS', `at most ${maxSubscriptions} subscriptions on a connection`);
    }
    const subscriber = new Subscriber(outlet, { words, snapshot: message.snapshot ?? false }, this, this.#deps);
    this.#subscribers = this.#subscribers.concat(subscriber);
    this.#send({ type: 'ok', id: message.id, ch: words.name, key: words.table.keyColumns });
    subscriber.begin(from);
  }

  /** By the name of its channel. */
  #to(name: string): Subscriber | undefined {
    return this.#subscribers.find(({ channel }) => channel.name === name);
  }

  #send(frame: ServerFrame): void {
    const { outlet } = this.#connection;
    outlet.write(framed(outlet.framing, JSON.stringify(frame)));
  }
}
