/** Server-sent events: one subscription as a GET, resumed by the browser's own Last-Event-ID. */
import type { Socket } from 'node:net';
import type { Request, RequestHandler, Response } from 'express';
import { parseExactJson } from '#shared/exact-json.ts';
import type { Position } from '#shared/wire.ts';
import type { Guest } from '../balance/departure.ts';
import { eventFraming, eventIds } from '../channels/framing.ts';
import { positionOf, Refused, wordsOf } from '../channels/row-query.ts';
import type { ChannelWords } from '../channels/rows-channel.ts';
import { invalidFields, PlankError } from '../http/errors.ts';
import { parseSegment } from '../http/row-address.ts';
import { Outlet } from '../relay/outlet.ts';
import { addressOf, forwardedFor, nextPeerId, type Peer } from './connection.ts';
import { PingWheel } from './ping-wheel.ts';
import { positionEveryMs } from './positions.ts';
import type { SessionDeps } from './session.ts';
import { Subscriber } from './subscription.ts';

/** after an end that nobody announced, browsers come back at some moment from here to its double … */
const leastRetryMs = 2_000;
/** … and where the replica asks them to go, within this time */
const returnWithinMs = 500;
const comment = Buffer.from(':\n\n');
const known = new Set(['where', 'columns', 'snapshot', 'since']);

interface Stream extends Peer {
  subscriber: Subscriber;
  response: Response;
  /** of performance.now() */
  openedAt: number;
}

interface EventStreamsDeps
  extends Pick<SessionDeps, 'catalog' | 'hub' | 'feed' | 'snapshots' | 'positions' | 'log' | 'metrics'> {
  /** how long a client may take nothing while data waits for it */
  stallTimeoutMs: number;
  /** this replica has as many connections as it accepts, of every transport */
  isFull: () => boolean;
  /** this replica takes nobody any more, and gets rid of those it has */
  isLeaving: () => boolean;
}

export class EventStreams {
  readonly #deps: EventStreamsDeps;
  readonly #streams = new Set<Stream>();
  /** connections that are for a stream, now or soon */
  readonly #taken = new WeakSet<Socket>();
  readonly #wheel: PingWheel<Stream>;

  constructor(deps: EventStreamsDeps) {
    this.#deps = deps;
    this.#wheel = new PingWheel(Math.min(positionEveryMs, deps.stallTimeoutMs / 2), (stream, now) =>
      this.#tick(stream, now),
    );
  }

  start(): void {
    this.#wheel.start();
  }

  get count(): number {
    return this.#streams.size;
  }

  get peers(): Iterable<Peer> {
    return this.#streams;
  }

  /** Those who are here, the oldest first, as far as it is about their leaving. */
  *guests(): Iterable<Guest> {
    for (const stream of this.#streams) {
      yield {
        outlet: stream.outlet,
        openedAt: stream.openedAt,
        // `live` gives it a position, and only a live one may be asked to go while others stay
        resumes: true,
        // `retry` counts from the end on
        tell: () => {},
        dismiss: () => {
          stream.outlet.write(retry(0, returnWithinMs));
          this.#end(stream);
        },
      };
    }
  }

  /** Ends the streams that are left: browsers come back by themselves. */
  stop(): void {
    this.#wheel.stop();
    for (const stream of this.#streams) this.#end(stream);
  }

  /**
   * The first handler of every request: what follows a stream on its connection would be done and never be answered, so that the
   * connection ends instead.
   */
  readonly guard: RequestHandler = (request, _response, next) => {
    if (this.#taken.has(request.socket)) request.socket.destroy();
    else next();
  };

  /** For `GET /api/:table/changes`. */
  readonly handler: RequestHandler = async (request, response) => {
    const { metrics } = this.#deps;
    // what it was told last is that there is nothing to come back for; browsers understand this answer
    if (request.get('last-event-id') === eventIds.end) {
      response.status(204).end();
      return;
    }
    const asked = askedOf(request);
    // refused at once, where it can be
    this.#wordsOf(asked);
    this.#taken.add(request.socket);
    // behind other requests of its connection, an answer has no socket until those are answered
    if (!response.socket) {
      await new Promise((resolve) => {
        response.once('socket', resolve);
        request.socket.once('close', resolve);
      });
    }
    const { socket } = response;
    if (!socket) return;
    let wish: { words: ChannelWords; from: Position | null };
    try {
      if (this.#deps.isLeaving()) throw new PlankError('LEAVING', 'this replica is leaving');
      if (this.#deps.isFull()) throw new PlankError('TOO_MANY', 'this replica is full');
      // the table may have been altered meanwhile
      wish = this.#wordsOf(asked);
    } catch (error) {
      // no stream comes: a proxy brings the requests of others on the same connection
      this.#taken.delete(request.socket);
      throw error;
    }
    const { words, from } = wish;
    // written to the raw socket, as on a WebSocket: the body has no length and no chunks, it ends with the connection
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
    const outlet = new Outlet(socket, eventFraming);
    const owner = { onEnded: () => this.#end(stream) };
    const subscriber = new Subscriber(outlet, { words, snapshot: asked.snapshot }, owner, this.#deps);
    const stream: Stream = {
      id: nextPeerId(),
      address: addressOf(outlet, forwardedFor(request)),
      mode: 'events',
      outlet,
      subscriber,
      response,
      openedAt: performance.now(),
      // a browser comes back by itself; one that reads nothing would not see an orderly end
      disconnect: () => void response.socket?.destroy(),
    };
    this.#streams.add(stream);
    metrics.opened.inc();
    const slot = this.#wheel.add(stream);
    socket.once('close', () => {
      this.#wheel.remove(stream, slot);
      outlet.end();
      subscriber.end();
      this.#streams.delete(stream);
      metrics.disconnects.inc({ code: 'sse' });
    });
    outlet.write(retry(leastRetryMs, 2 * leastRetryMs));
    subscriber.begin(from);
  };

  /** Throws PlankError. */
  #wordsOf(asked: ReturnType<typeof askedOf>): { words: ChannelWords; from: Position | null } {
    try {
      return { words: wordsOf(asked, this.#deps.catalog), from: positionOf(asked) };
    } catch (error) {
      if (error instanceof Refused)
        throw new PlankError(error.code === 'UNKNOWN_TABLE' ? 'NOT_FOUND' : 'INVALID', error.message, { cause: error });
      throw error;
    }
  }

  #tick(stream: Stream, now: number): void {
    const { hub, positions, stallTimeoutMs } = this.#deps;
    // it would not read a goodbye either
    if (stream.outlet.stalledMs(now) > stallTimeoutMs) stream.response.socket?.destroy();
    if (stream.outlet.queuedBytes > 0) return;
    const isLive = stream.subscriber.subscription.state === 'live';
    // the comment keeps the connection open where a position would say too much
    stream.outlet.write(isLive && positions.areSaid ? positions.frame(eventFraming, hub.seq) : comment);
  }

  #end(stream: Stream): void {
    const { socket } = stream.response;
    stream.outlet.end();
    socket?.end();
  }
}

/** Tells a browser to come back so long after the end, in ms. */
function retry(fromMs: number, toMs: number): Buffer {
  return Buffer.from(`retry: ${Math.round(fromMs + Math.random() * (toMs - fromMs))}\n\n`);
}

function askedOf(request: Request): {
  table: string;
  where?: unknown;
  columns?: string[];
  from?: string;
  snapshot: boolean;
} {
  for (const [name, value] of Object.entries(request.query)) {
    if (!known.has(name)) throw wrong(name, 'is not a query parameter of this');
    if (typeof value !== 'string') throw wrong(name, 'is there more than once');
    if (name === 'snapshot' && !/^(true|false|1|0)$/.test(value)) throw wrong(name, 'is neither true nor false');
  }
  const query = request.query as Record<string, string>;
  const last = request.get('last-event-id');
  const from = last === eventIds.anew ? undefined : (last ?? query.since);
  return {
    table: parseSegment(request.path.split('/')[2]!, false)[0]!,
    ...(query.where === undefined ? {} : { where: parseJson(query.where) }),
    ...(query.columns === undefined ? {} : { columns: query.columns.split(',') }),
    ...(from === undefined ? {} : { from }),
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
