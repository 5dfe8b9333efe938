/** What is said on one WebSocket of plank.v1: hello first, then requests, each answered by `ok` or `error`. */
import { type ClientMessage, parseClientMessage, type SubscribeMessage } from '#shared/protocol.ts';
import { closeCodes, formatPosition, type ServerFrame } from '#shared/wire.ts';
import type { Connection } from './connection.ts';
import { framed } from './framing.ts';
import { keepDigits } from './row-schema.ts';
import { positionOf, Refused, wordsOf } from './subscribe.ts';
import { type Owner, Subscriber, type SubscriberDeps } from './subscriber.ts';

const helloTimeoutMs = 5_000;
const maxSubscriptions = 100;
/** so many ticks (of 5 s) without a change, and a client is told its position all the same */
const quietTicks = 12;
const none: readonly never[] = [];

export interface SessionDeps extends SubscriberDeps {
  node: string;
  pingMs: number;
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
  /** the last position that the client was told of for all of its subscriptions */
  #toldSeq = 0;
  #quietTicks = 0;

  constructor(connection: Connection, deps: SessionDeps) {
    this.#connection = connection;
    this.#deps = deps;
    this.#helloTimer = setTimeout(() => connection.close(closeCodes.noHello, 'no hello came in time'), helloTimeoutMs);
  }

  receive(text: string): void {
    const message = parseClientMessage(text, keepDigits);
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

  /** Tells a quiet client how far it is. To be called now and then. */
  tick(): void {
    const { hub } = this.#deps;
    if (this.#subscribers.length === 0 || hub.seq === this.#toldSeq) return;
    // that canaries came is no news; but what was told once must not become older than the log is kept
    if (hub.changedSeq <= this.#toldSeq && ++this.#quietTicks < quietTicks) return;
    let told = hub.seq;
    for (const { subscription } of this.#subscribers) {
      if (subscription.state !== 'live') return;
      told = Math.min(told, subscription.channel.toldSeq);
    }
    this.#quietTicks = 0;
    // changes have told it, on all of its channels, since the last time
    const isBusy = told > this.#toldSeq;
    this.#toldSeq = isBusy ? told : hub.seq;
    if (isBusy) return;
    this.#send({ type: 'pos', pos: formatPosition(hub) });
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
    const { name } = words;
    if (this.#to(name)) {
      const error = { code: 'ALREADY_SUBSCRIBED', message: `already subscribed to ${name}`, retry: false } as const;
      this.#send({ type: 'error', id: message.id, ch: name, ...error });
      return;
    }
    if (this.#subscribers.length >= maxSubscriptions) {
      throw new Refused('TOO_MANY_SUBSCRIPTIONS', `at most ${maxSubscriptions} subscriptions on a connection`);
    }
    const subscriber = new Subscriber(outlet, { words, snapshot: message.snapshot ?? false }, this, this.#deps);
    this.#subscribers = this.#subscribers.concat(subscriber);
    this.#send({ type: 'ok', id: message.id, ch: name, key: words.table.keyColumns });
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
