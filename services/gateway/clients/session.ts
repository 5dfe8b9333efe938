/** plank.v1 on one WebSocket: `hello` comes first, then requests, which are answered by `ok` or `error`. */
import { parseExactJson } from '#shared/exact-json.ts';
import { closeCodes, formatPosition, type Position, type ServerFrame } from '#shared/wire.ts';
import { TokenRefused } from '../access/identity.ts';
import { KeysUnavailable } from '../access/keys.ts';
import { TooMany } from '../access/limits.ts';
import type { Viewer } from '../access/viewer.ts';
import { framed } from '../channels/framing.ts';
import { isSame, otherNameOf, positionOf, Refused, type RowQuery } from '../channels/row-query.ts';
import type { Cursor } from '../relay/cursor.ts';
import type { Connection } from './connection.ts';
import type { Credentials } from './credentials.ts';
import {
  type AuthMessage,
  type ClientMessage,
  type HelloMessage,
  parseClientMessage,
  type SubscribeMessage,
} from './messages.ts';
import { type Positions, positionEveryMs } from './positions.ts';
import type { Protocol } from './protocol.ts';
import type { Hold } from './queries.ts';
import { Subscription, type SubscriptionDeps, type SubscriptionOwner } from './subscription.ts';

const helloTimeoutMs = 5_000;
const maxSubscriptions = 100;
/** a client that got a change within this time sees that changes arrive, and needs no position */
const justNowMs = 1_000;
const none: readonly never[] = [];

export interface SessionDeps extends SubscriptionDeps {
  node: string;
  pingMs: number;
  positions: Positions;
}

export class Session implements Protocol, SubscriptionOwner {
  readonly #connection: Connection;
  readonly #deps: SessionDeps;
  /**
   * A list that is never mutated, only replaced. Most sessions have one or two subscriptions, and a
   * Map would take more memory than the rest of the session. `concat` makes the list, as it
   * allocates only the elements; `[...]` and `push` allocate room for 17 elements at first.
   */
  #subscriptions: readonly Subscription[] = none;
  /** undefined: `hello` has arrived */
  #helloTimer: NodeJS.Timeout | undefined;
  /** `welcome` was sent */
  #isWelcome = false;
  /** seq of the last position that `tick` sent */
  #sentSeq = -1;

  constructor(connection: Connection, deps: SessionDeps) {
    this.#connection = connection;
    this.#deps = deps;
    this.#helloTimer = setTimeout(() => connection.close(closeCodes.noHello, 'no hello came in time'), helloTimeoutMs);
  }

  get viewer(): Viewer | null {
    return this.#connection.viewer;
  }

  get cursors(): readonly Cursor[] {
    return this.#subscriptions.map(({ cursor }) => cursor);
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
      this.#handle(message);
    } catch (error) {
      if (!(error instanceof Refused) || !('id' in message)) throw error;
      this.#refuse(message.id, error);
    }
  }

  /**
   * Sends a quiet client its position, which shows that changes can reach it. Called at the interval
   * that `welcome` names (`pos_ms`).
   */
  tick(now: number): void {
    const { hub, positions } = this.#deps;
    const { outlet } = this.#connection;
    // while bytes are queued, they will show the client that changes arrive
    if (this.#subscriptions.length === 0 || !positions.areSent || outlet.queuedBytes > 0) return;
    let seq = hub.seq;
    let isBusy = true;
    for (const { cursor, channel, wasSentLive } of this.#subscriptions) {
      const isLive = cursor.state === 'live';
      if (!isLive || now - channel.sentAt > justNowMs) isBusy = false;
      // The client received `live` for this cursor, but the cursor fell behind since. If the sent position were after
      // the cursor's, the client would believe that it has changes that it lacks.
      if (!isLive && wasSentLive) seq = Math.min(seq, cursor.seq);
    }
    if (isBusy || (seq < hub.seq && seq <= this.#sentSeq)) return;
    this.#sentSeq = seq;
    outlet.write(positions.frame(outlet.framing, seq));
  }

  /** True after `welcome`: the client has a position from it, or reads rows first. */
  get resumes(): boolean {
    return this.#isWelcome;
  }

  warn(afterMs: number): void {
    // nothing may be sent before `welcome`
    if (this.#isWelcome) this.#send({ type: 'drain', after_ms: afterMs });
  }

  end(): void {
    clearTimeout(this.#helloTimer);
    for (const subscription of this.#subscriptions) subscription.end();
    this.#subscriptions = [];
  }

  onEnded(subscription: Subscription): void {
    this.#subscriptions = this.#subscriptions.filter((other) => other !== subscription);
  }

  get #awaitsHello(): boolean {
    return this.#helloTimer !== undefined;
  }

  #handle(message: ClientMessage): void {
    const { credentials } = this.#connection;
    switch (message.type) {
      case 'hello':
        clearTimeout(this.#helloTimer);
        this.#helloTimer = undefined;
        if (credentials && message.token !== undefined) void this.#identify(credentials, message, message.token);
        else this.#welcome();
        return;
      case 'auth':
        if (credentials) void this.#identify(credentials, message, message.token);
        else this.#send({ type: 'ok', id: message.id });
        return;
      case 'subscribe':
        this.#subscribe(message);
        return;
      case 'unsubscribe': {
        const subscription = this.#subscriptions.find(({ channel }) => channel.name === message.ch);
        if (!subscription) throw new Refused('UNKNOWN_CHANNEL', `no subscription to ${JSON.stringify(message.ch)}`);
        subscription.end();
        this.onEnded(subscription);
        this.#send({ type: 'ok', id: message.id });
        return;
      }
      case 'ping':
        this.#send({ type: 'pong' });
    }
  }

  #welcome(): void {
    const { hub, node, pingMs } = this.#deps;
    this.#isWelcome = true;
    this.#send({
      type: 'welcome',
      node,
      connection: `${node}/${this.#connection.id}`,
      ping_ms: pingMs,
      pos_ms: positionEveryMs,
      pos: formatPosition(hub),
      ...this.#connection.credentials?.claims,
    });
  }

  /** Checks a token of the client. Later messages of the client wait until the check is done (inbox.ts). */
  async #identify(credentials: Credentials, message: HelloMessage | AuthMessage, token: string): Promise<void> {
    this.#connection.isBusy = true;
    try {
      await credentials.renew(token);
      // if the connection has closed meanwhile, nothing is sent
      if (message.type === 'hello') this.#welcome();
      else this.#send({ type: 'ok', id: message.id, ...credentials.claims });
      for (const subscription of this.#subscriptions) subscription.onAccess();
    } catch (error) {
      if (error instanceof KeysUnavailable && message.type === 'auth')
        this.#send({ type: 'error', id: message.id, code: 'UNAVAILABLE', message: error.message, retry: true });
      else this.#turnAway(error);
    } finally {
      this.#connection.isBusy = false;
    }
  }

  #turnAway(error: unknown): void {
    if (error instanceof KeysUnavailable) this.#connection.close(closeCodes.internal, error.message);
    else if (error instanceof TooMany) this.#connection.close(closeCodes.tooMany, error.message);
    else if (!(error instanceof TokenRefused)) throw error;
    else {
      const code = error.reason === 'other_user' ? closeCodes.forbidden : closeCodes.unauthorized;
      this.#connection.close(code, error.message);
    }
    // the socket is paused if messages of the client wait. A paused socket would not read the client's answer to the
    // close.
    this.#connection.ws.resume();
  }

  /** If sets must be loaded first, later messages of the client wait until the sets are loaded. */
  #subscribe(message: SubscribeMessage): void {
    const from = positionOf(message);
    const { queries } = this.#deps;
    const loading = queries.load(
      () => [queries.of(message, this.viewer)],
      (hold) => this.#begin(message, from, hold),
    );
    if (loading) void this.#afterLoading(loading, message);
  }

  async #afterLoading(loading: Promise<void>, message: SubscribeMessage): Promise<void> {
    this.#connection.isBusy = true;
    try {
      await loading;
    } catch (error) {
      if (!(error instanceof Refused)) throw error;
      this.#refuse(message.id, error);
    } finally {
      this.#connection.isBusy = false;
    }
  }

  #begin(message: SubscribeMessage, from: Position | null, hold: Hold): void {
    const [query] = hold.queries as [RowQuery];
    const isTaken = (name: string) => this.#subscriptions.some(({ channel }) => channel.name === name);
    const same = this.#subscriptions.find(({ channel }) => isSame(channel.query, query));
    if (same) {
      hold.release();
      const { name } = same.channel;
      const error = { code: 'ALREADY_SUBSCRIBED', message: `already subscribed to ${name}`, retry: false } as const;
      this.#send({ type: 'error', id: message.id, ch: name, ...error });
      return;
    }
    // the connection closed while the sets were loaded
    if (!this.#connection.outlet.open) return hold.release();
    if (this.#subscriptions.length >= maxSubscriptions) {
      hold.release();
      throw new Refused('TOO_MANY_SUBSCRIPTIONS', `at most ${maxSubscriptions} subscriptions on a connection`);
    }
    // a subscription keeps its name when its rights change, so the usual name of this query may be in use
    const name = isTaken(query.name) ? { name: otherNameOf(query.digest) } : {};
    const request = { hold, ...name, snapshot: message.snapshot ?? false };
    const subscription = new Subscription(this.#connection.outlet, request, this, this.#deps);
    this.#subscriptions = this.#subscriptions.concat(subscription);
    this.#send({ type: 'ok', id: message.id, ch: subscription.channel.name, key: query.table.keyColumns });
    subscription.begin(from, message.ch ?? null);
  }

  #refuse(id: number, { code, message }: Refused): void {
    this.#send({ type: 'error', id, code, message, retry: code === 'UNAVAILABLE' });
  }

  #send(frame: ServerFrame): void {
    const { outlet } = this.#connection;
    outlet.write(framed(outlet.framing, JSON.stringify(frame)));
  }
}
