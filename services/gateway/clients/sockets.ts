/**
 * The WebSocket side: who may connect, in which mode, and that each connection ends. What is said on one is in plain.ts and
 * session.ts.
 */
import type { IncomingMessage } from 'node:http';
import type { Socket } from 'node:net';
import type { Duplex } from 'node:stream';
import { type RawData, type Server, WebSocket, WebSocketServer } from 'ws';
import type { GatewayConfig } from '#shared/process/config.ts';
import { once, sleep } from '#shared/waiting.ts';
import { closeCodes, subprotocol } from '#shared/wire.ts';
import type { Guest } from '../balance/departure.ts';
import { Connection, forwardedFor, type Peer } from './connection.ts';
import { Inbox } from './inbox.ts';
import { PingWheel } from './ping-wheel.ts';
import { Plain, type PlainDeps, plainWish } from './plain.ts';
import { type Positions, positionEveryMs } from './positions.ts';
import { Session, type SessionDeps } from './session.ts';
import type { SubscriberDeps } from './subscription.ts';
import { wrongParameter } from './ws-parameters.ts';

const maxPayload = 64 * 1024;
/** a closing handshake gets this long before the replica ends */
const goodbyeMs = 3_000;

/**
 * A socket that knows whose it is, so that all share their handlers: a closure for each event of each connection would weigh as
 * much as what it is about.
 */
class ClientSocket extends WebSocket {
  connection: Connection | undefined;
  pingSlot = 0;
  tickSlot = 0;
}

/** What is said on a connection, in one mode or the other. */
interface Speaker {
  /** it knows a position, from which it can go on elsewhere */
  readonly resumes: boolean;
  receive(text: string): void;
  /** Now and then: a moment to tell a quiet client how far it is. */
  tick(now: number): void;
  /** The replica leaves, or has too many: the client is to come back after so long. */
  drain(afterMs: number): void;
  end(): void;
}

interface SocketsOptions extends PlainDeps, SubscriberDeps {
  config: GatewayConfig;
  positions: Positions;
  /** this replica has as many connections as it accepts, of every transport */
  isFull: () => boolean;
  /** this replica takes nobody any more, and gets rid of those it has */
  isLeaving: () => boolean;
}

export class Sockets {
  readonly #options: SocketsOptions;
  readonly #sessionDeps: SessionDeps;
  readonly #server: Server<typeof ClientSocket>;
  readonly #connections = new Map<Connection, Speaker>();
  readonly #wheel: PingWheel<Connection>;
  readonly #ticks: PingWheel<Connection>;
  readonly #inbox: Inbox;

  constructor(options: SocketsOptions) {
    this.#options = options;
    const { NODE_NAME: node, PING_INTERVAL_MS: pingMs } = options.config;
    this.#sessionDeps = { ...options, node, pingMs };
    this.#server = new WebSocketServer({
      noServer: true,
      WebSocket: ClientSocket,
      clientTracking: false,
      perMessageDeflate: false,
      maxPayload,
      maxFragments: 64,
      maxBufferedChunks: 4_096,
      autoPong: false,
      handleProtocols: (offered) => (offered.has(subprotocol) ? subprotocol : false),
    });
    this.#wheel = new PingWheel(options.config.PING_INTERVAL_MS, (connection, now) => this.#ping(connection, now));
    this.#ticks = new PingWheel(positionEveryMs, (connection, now) => this.#connections.get(connection)?.tick(now));
    this.#inbox = new Inbox({
      maxQueueBytes: options.config.MAX_QUEUE_BYTES,
      hear: (connection, message) => this.#hear(connection, message),
    });
    options.metrics.connectionsLimit.set(options.config.MAX_CONNECTIONS);
  }

  start(): void {
    this.#wheel.start();
    this.#ticks.start();
  }

  get count(): number {
    return this.#connections.size;
  }

  get peers(): Iterable<Peer> {
    return this.#connections.keys();
  }

  /** Answers an upgrade request: with a WebSocket on /ws, with an HTTP error elsewhere. `isOwn`: where from has been looked at. */
  upgrade(request: IncomingMessage, socket: Duplex, head: Buffer, { isOwn = false } = {}): void {
    const { config } = this.#options;
    let url: URL;
    try {
      url = new URL(request.url ?? '/', 'ws://local');
    } catch {
      return refuse(socket, '400 Bad Request', 'the URL is malformed');
    }
    if (url.pathname !== '/ws') return refuse(socket, '404 Not Found', 'WebSocket is served at /ws');
    if (!isOwn && !isAllowedOrigin(config.CORS_ORIGINS, request.headers.origin))
      return refuse(socket, '403 Forbidden', 'this origin is not allowed');
    if (this.#options.isLeaving()) return refuse(socket, '503 Service Unavailable', 'this replica is leaving');
    if (this.#options.isFull()) return refuse(socket, '503 Service Unavailable', 'this replica is full');
    this.#server.handleUpgrade(request, socket, head, (ws) =>
      this.#open(ws, socket as Socket, url, forwardedFor(request)),
    );
  }

  #open(ws: ClientSocket, socket: Socket, url: URL, forwardedFor: string | null): void {
    const { metrics } = this.#options;
    ws.on('error', this.#onError);
    ws.on('close', this.#onClose);
    metrics.opened.inc();
    socket.setNoDelay(true);
    const connection = new Connection(ws, socket, forwardedFor);
    const speaker = this.#speaker(connection, ws.protocol, url);
    if (!speaker) return;
    ws.connection = connection;
    this.#connections.set(connection, speaker);
    ws.pingSlot = this.#wheel.add(connection);
    ws.tickSlot = this.#ticks.add(connection);
    ws.on('message', this.#onMessage);
    ws.on('pong', onPong);
    ws.on('ping', this.#onPing);
    // a closure, as another property would make a shape of its own of the sockets that are written to (main.ts)
    socket.on('data', (bytes: Buffer) => {
      if (!connection.countPiece(bytes.length)) refuseFlood(connection);
    });
  }

  readonly #onError = (error: Error): void => {
    this.#options.log.debug({ err: error }, 'a client broke the protocol');
  };

  readonly #onMessage = ofSocket((ws, message: RawData, isBinary: boolean): void => {
    const connection = ws.connection!;
    connection.alive = true;
    if (!counted(connection)) return;
    if (isBinary) return connection.close(closeCodes.malformed, 'messages are JSON text');
    this.#inbox.receive(connection, message as Buffer);
  });

  readonly #onPing = ofSocket((ws, payload: Buffer): void => {
    const connection = ws.connection!;
    connection.alive = true;
    // who does not read its pongs gets none
    if (counted(connection) && connection.outlet.queuedBytes < this.#options.config.MAX_QUEUE_BYTES) ws.pong(payload);
  });

  readonly #onClose = ofSocket(({ connection, pingSlot, tickSlot }, code: number): void => {
    if (connection) {
      this.#wheel.remove(connection, pingSlot);
      this.#ticks.remove(connection, tickSlot);
      this.#inbox.forget(connection);
      connection.outlet.end();
      this.#connections.get(connection)?.end();
      this.#connections.delete(connection);
    }
    this.#options.metrics.disconnects.inc({ code: String(code) });
  });

  /** Who speaks on the connection; null: it is being closed, with the reason. */
  #speaker(connection: Connection, protocol: string, url: URL): Speaker | null {
    const wrong = wrongParameter(url, protocol !== subprotocol);
    if (wrong !== null) {
      connection.close(closeCodes.malformed, wrong);
      return null;
    }
    if (protocol === subprotocol) return new Session(connection, this.#sessionDeps);
    const wish = plainWish(url, this.#options);
    if (!('error' in wish)) return new Plain(connection, wish, this.#options);
    connection.close(wish.code, wish.error);
    return null;
  }

  #hear(connection: Connection, message: Buffer): void {
    connection.alive = true;
    if (connection.outlet.open) this.#connections.get(connection)?.receive(message.toString());
  }

  #ping(connection: Connection, now: number): void {
    const found = connection.check(now, this.#options.config.STALL_TIMEOUT_MS);
    if (found === 'dead') connection.terminate();
    else if (found === 'stalled') connection.close(closeCodes.tooSlow, 'nothing was read for too long');
  }

  /** Those who are here, the oldest first, as far as it is about their leaving. */
  *guests(): Iterable<Guest> {
    for (const [connection, speaker] of this.#connections) {
      yield {
        outlet: connection.outlet,
        openedAt: connection.openedAt,
        resumes: speaker.resumes,
        tell: (afterMs) => speaker.drain(afterMs),
        dismiss: (why) => connection.close(closeCodes.restart, why),
      };
    }
  }

  /** To be called when it takes no more and has closed those it had: resolves when they are gone. */
  readonly stop = once(async () => {
    const gone = performance.now() + goodbyeMs;
    while (this.#connections.size > 0 && performance.now() < gone) await sleep(20);
    for (const connection of this.#connections.keys()) connection.terminate();
    this.#wheel.stop();
    this.#ticks.stop();
    this.#inbox.stop();
    this.#server.close();
  });
}

/** As an event handler: `ws` calls it with the socket as `this`. */
function ofSocket<Words extends unknown[]>(
  handle: (ws: ClientSocket, ...words: Words) => void,
): (this: WebSocket, ...words: Words) => void {
  return function (...words) {
    handle(this as ClientSocket, ...words);
  };
}

const onPong = ofSocket((ws) => {
  const connection = ws.connection!;
  connection.alive = true;
  counted(connection);
});

/** Counts a frame. False: it is not to be looked at. */
function counted(connection: Connection): boolean {
  if (connection.countFrame()) return connection.outlet.open;
  refuseFlood(connection);
  return false;
}

function refuseFlood(connection: Connection): void {
  // one that is being closed is not read to its end either
  if (connection.outlet.open) connection.refuse(closeCodes.tooMany, 'too many messages');
  else connection.ws.pause();
}

function destroyThis(this: Duplex): void {
  this.destroy();
}

function isAllowedOrigin(allowed: readonly string[], origin: string | undefined): boolean {
  return allowed.includes('*') || (origin !== undefined && allowed.includes(origin));
}

/** Answers an upgrade request by an HTTP error. `status`: "404 Not Found". */
export function refuse(socket: Duplex, status: string, detail: string): void {
  const body = JSON.stringify({
    type: 'about:blank',
    title: status.slice(4),
    status: Number(status.slice(0, 3)),
    detail,
  });
  socket.on('error', destroyThis);
  // nobody else ends it: one whose client keeps its side open would stay for ever, and keep the server from closing
  socket.once('finish', () => socket.destroy());
  socket.end(
    `HTTP/1.1 ${status}\r\nconnection: close\r\ncontent-type: application/problem+json\r\ncontent-length: ${Buffer.byteLength(body)}\r\n\r\n${body}`,
  );
}
