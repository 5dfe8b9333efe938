/**
 * Server-sent events: one GET is one subscription. The header Last-Event-ID resumes a subscription. Browsers send this
 * header when they reconnect.
 */
import type { Socket } from 'node:net';
import type { Request, RequestHandler, Response } from 'express';
import type { Seat } from '#shared/bus/shared-state.ts';
import { parseExactJson } from '#shared/exact-json.ts';
import type { Access } from '../access/access.ts';
import { leaveAtClose, TooMany } from '../access/limits.ts';
import { anonymous, type Identity, type Viewer } from '../access/viewer.ts';
import { eventFraming, eventIds } from '../channels/framing.ts';
import { positionOf, Refused, type RowQuery } from '../channels/row-query.ts';
import type { Addresses } from '../http/address.ts';
import { invalidFields, PlankError } from '../http/errors.ts';
import { identify, tooMany } from '../http/identity.ts';
import { parseSegment } from '../http/row-address.ts';
import type { Clients } from './clients.ts';
import { EventStream } from './event-stream.ts';
import { PingWheel } from './ping-wheel.ts';
import { type Positions, positionEveryMs } from './positions.ts';
import type { Hold } from './queries.ts';
import type { SubscriptionDeps } from './subscription.ts';

const comment = Buffer.from(':\n\n');
const parameters = new Set(['where', 'columns', 'snapshot', 'since', 'ticket']);

interface EventStreamsDeps extends SubscriptionDeps {
  /** null: clients need no token */
  access: Access | null;
  addresses: Addresses;
  clients: Clients;
  positions: Positions;
  /** a client that takes no bytes for this time, while bytes are queued for the client, is cut off */
  stallTimeoutMs: number;
}

export class EventStreams {
  readonly #deps: EventStreamsDeps;
  /** connections that carry a stream, or will carry one once earlier requests are answered */
  readonly #taken = new WeakSet<Socket>();
  readonly #wheel: PingWheel<EventStream>;

  constructor(deps: EventStreamsDeps) {
    this.#deps = deps;
    this.#wheel = new PingWheel(Math.min(positionEveryMs, deps.stallTimeoutMs / 2), (stream, now) =>
      this.#tick(stream, now),
    );
  }

  start(): void {
    this.#wheel.start();
  }

  stop(): void {
    this.#wheel.stop();
  }

  /**
   * The first handler of every request. Ends the connection if a stream occupies the connection already. Without this,
   * the gateway would carry out the request, but could never send the answer.
   */
  readonly guard: RequestHandler = (request, _response, next) => {
    if (this.#taken.has(request.socket)) request.socket.destroy();
    else next();
  };

  /** For `GET /api/:table/changes`. */
  readonly handler: RequestHandler = async (request, response) => {
    const { access, clients } = this.#deps;
    // the client's last event was a final error. After a 204, a browser does not reconnect.
    if (request.get('last-event-id') === eventIds.end) {
      response.status(204).end();
      return;
    }
    const identity = access && (await this.#identify(access, request, response));
    const viewer = access && (identity ?? anonymous);
    const asked = requestOf(request);
    // refuses a wrong request at once, before the waits below
    this.#resolve(asked, viewer);
    this.#taken.add(request.socket);
    // the response gets its socket only when earlier requests on the connection are answered
    if (!response.socket) {
      await new Promise((resolve) => {
        response.once('socket', resolve);
        request.socket.once('close', resolve);
      });
    }
    const { socket } = response;
    if (!socket) return;
    const seats: Seat[] = [];
    try {
      if (access) await this.#sit(access, request, identity, seats);
      // the request is resolved again, because the table may have been altered during the wait
      const resolve = () => {
        if (clients.isLeaving) throw new PlankError('LEAVING', 'this replica is leaving');
        if (clients.isFull) throw new PlankError('TOO_MANY', 'this replica is full');
        return [this.#resolve(asked, viewer)];
      };
      await this.#deps.queries.load(resolve, (hold) => {
        for (const seat of seats) leaveAtClose(seat, socket);
        if (socket.destroyed) hold.release();
        else this.#open(request, response, socket, { asked, hold, viewer, identity });
      });
    } catch (error) {
      // no stream begins, so the connection stays usable: a proxy may send other clients' requests on it
      this.#taken.delete(request.socket);
      for (const seat of seats) seat.leave();
      throw error instanceof Refused ? problemOf(error) : error;
    }
  };

  #open(request: Request, response: Response, socket: Socket, { asked, hold, viewer, identity }: Opening): void {
    const { access, clients, metrics } = this.#deps;
    // Events are written to the raw socket, as on a WebSocket. So the body has neither a length nor chunks: the end
    // of the connection ends the body.
    response.shouldKeepAlive = false;
    response.useChunkedEncodingByDefault = false;
    response.writeHead(200, {
      'content-type': 'text/event-stream',
      'cache-control': 'no-store',
      connection: 'close',
      'x-accel-buffering': 'no',
    });
    response.flushHeaders();
    socket.setNoDelay(true);
    socket.setTimeout(0);
    const stream = new EventStream(
      socket,
      this.#deps.addresses.forwarded(request),
      { hold, snapshot: asked.snapshot, viewer, expiresAt: identity?.expiresAt ?? null },
      this.#deps,
    );
    clients.add(stream);
    metrics.opened.inc();
    const slot = this.#wheel.add(stream);
    if (identity) access?.admit(stream, identity);
    socket.once('close', () => {
      this.#wheel.remove(stream, slot);
      access?.expiries.delete(stream);
      stream.outlet.end();
      stream.subscription.end();
      clients.remove(stream);
      metrics.disconnects.inc({ code: 'sse' });
    });
    stream.subscription.begin(positionOf(asked), asked.ch ?? null);
  }

  /** Takes the seats of a stream, and adds each to `seats`, even if a later one cannot be taken. Throws PlankError. */
  async #sit({ limits }: Access, request: Request, identity: Identity | null, seats: Seat[]): Promise<void> {
    try {
      seats.push(await limits.ofAddress(this.#deps.addresses.of(request)));
      if (identity) seats.push(await limits.ofUser(identity.user));
    } catch (error) {
      throw error instanceof TooMany ? tooMany(error) : error;
    }
  }

  /**
   * Null: the request has no token. Throws PlankError. While the token is checked, the connection counts as taken, so
   * that no later request on the connection is carried out.
   */
  async #identify({ identities }: Access, request: Request, response: Response): Promise<Identity | null> {
    this.#taken.add(request.socket);
    try {
      const { ticket } = request.query;
      const identifying = { identities, addresses: this.#deps.addresses };
      return await identify(identifying, request, response, typeof ticket === 'string' ? ticket : null);
    } finally {
      this.#taken.delete(request.socket);
    }
  }

  /** Throws PlankError. */
  #resolve(asked: StreamRequest, viewer: Viewer | null): RowQuery {
    try {
      const query = this.#deps.queries.of(asked, viewer);
      positionOf(asked);
      return query;
    } catch (error) {
      throw error instanceof Refused ? problemOf(error) : error;
    }
  }

  #tick(stream: EventStream, now: number): void {
    const { hub, positions, stallTimeoutMs } = this.#deps;
    const { outlet, subscription } = stream;
    // the connection is cut, because a client that reads nothing would not read an orderly end
    if (outlet.stalledMs(now) > stallTimeoutMs) stream.cut();
    if (outlet.queuedBytes > 0) return;
    const isLive = subscription.cursor.state === 'live';
    // A position means that the client has all changes up to the position. If it is not certain that the client has
    // them, a comment is sent instead, which keeps the connection open.
    if (!isLive || !positions.areSent) outlet.write(comment);
    else if (stream.viewer === null) outlet.write(positions.frame(eventFraming, hub.seq));
    else subscription.sendPosition();
  }
}

function problemOf(refused: Refused): PlankError {
  const { code, message } = refused;
  const other = code === 'FORBIDDEN' || code === 'UNAVAILABLE' ? code : 'INVALID';
  return new PlankError(code === 'UNKNOWN_TABLE' ? 'NOT_FOUND' : other, message, { cause: refused });
}

/** The values that a stream begins with. */
interface Opening {
  asked: StreamRequest;
  hold: Hold;
  viewer: Viewer | null;
  identity: Identity | null;
}

interface StreamRequest {
  table: string;
  where?: unknown;
  columns?: string[];
  from?: string;
  ch?: string;
  snapshot: boolean;
}

function requestOf(request: Request): StreamRequest {
  for (const [name, value] of Object.entries(request.query)) {
    if (!parameters.has(name)) throw wrong(name, 'is not a query parameter of this');
    if (typeof value !== 'string') throw wrong(name, 'is there more than once');
    if (name === 'snapshot' && !/^(true|false|1|0)$/.test(value)) throw wrong(name, 'is neither true nor false');
  }
  const query = request.query as Record<string, string>;
  const last = request.get('last-event-id');
  const id = last === eventIds.anew ? undefined : (last ?? query.since);
  const [from, ch] = id?.split(eventIds.channel, 2) ?? [];
  return {
    table: parseSegment(request.path.split('/')[2]!, false)[0]!,
    ...(query.where === undefined ? {} : { where: parseJson(query.where) }),
    ...(query.columns === undefined ? {} : { columns: query.columns.split(',') }),
    ...(from === undefined ? {} : { from }),
    ...(ch === undefined ? {} : { ch }),
    snapshot: query.snapshot === 'true' || query.snapshot === '1',
  };
}

const wrong = (path: string, message: string, cause?: unknown) => invalidFields([{ path, message }], cause);

function parseJson(text: string): unknown {
  try {
    return parseExactJson(text);
  } catch (error) {
    throw wrong('where', error instanceof RangeError ? 'is nested too deeply' : 'is not JSON', error);
  }
}
