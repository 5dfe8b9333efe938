/**
 * The WebSocket side: accepts or refuses upgrades, chooses the protocol of each connection, and ends
 * dead, stalled and flooding connections. The protocols are in plain.ts and session.ts.
 */
import type { IncomingMessage } from 'node:http';
import type { Socket } from 'node:net';
import type { Duplex } from 'node:stream';
import { type RawData, type Server, WebSocket, WebSocketServer } from 'ws';
import type { GatewayConfig } from '#shared/process/config.ts';
import { closeCodes, subprotocol } from '#shared/wire.ts';
import type { Access } from '../access/access.ts';
import { TokenRefused } from '../access/identity.ts';
import { KeysUnavailable } from '../access/keys.ts';
import { leaveAtClose, TooMany } from '../access/limits.ts';
import type { Addresses } from '../http/address.ts';
import { challenge } from '../http/identity.ts';
import type { Clients } from './clients.ts';
import { type Admitted, Connection } from './connection.ts';
import { Inbox } from './inbox.ts';
import { PingWheel } from './ping-wheel.ts';
import { Plain, type PlainDeps, plainRequest } from './plain.ts';
import { type Positions, positionEveryMs } from './positions.ts';
import type { Protocol } from './protocol.ts';
import { Session, type SessionDeps } from './session.ts';
import type { SubscriptionDeps } from './subscription.ts';
import { wrongParameter } from './ws-parameters.ts';

const maxPayload = 64 * 1024;

/**
 * A socket that holds its connection, so that all sockets share the same handlers. A closure for
 * each event of each connection would take as much memory as the connection itself.
 */
class ClientSocket extends WebSocket {
  connection: Connection | undefined;
  pingSlot = 0;
  tickSlot = 0;
}

interface SocketsOptions extends PlainDeps, SubscriptionDeps {
  config: GatewayConfig;
  /** null: clients need no token */
  access: Access | null;
  addresses: Addresses;
  clients: Clients;
  positions: Positions;
}

export class Sockets {
  readonly #options: SocketsOptions;
  readonly #sessionDeps: SessionDeps;
  readonly #server: Server<typeof ClientSocket>;
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
    this.#ticks = new PingWheel(positionEveryMs, (connection, now) => connection.protocol?.tick(now));
    this.#inbox = new Inbox({
      maxQueueBytes: options.config.MAX_QUEUE_BYTES,
      handle: (connection, message) => this.#handle(connection, message),
    });
  }

  start(): void {
    this.#wheel.start();
    this.#ticks.start();
  }

  /**
   * Answers an upgrade request: at /ws with a WebSocket, elsewhere with an HTTP error. `isOwn`: the
   * request is an operator's, whose origin and right the caller has checked already.
   */
  upgrade(request: IncomingMessage, socket: Duplex, head: Buffer, { isOwn = false } = {}): void {
    const { config, access } = this.#options;
    let url: URL;
    try {
      url = new URL(request.url ?? '/', 'ws://local');
    } catch {
      return refuse(socket, '400 Bad Request', 'the URL is malformed');
    }
    if (url.pathname !== '/ws') return refuse(socket, '404 Not Found', 'WebSocket is served at /ws');
    if (!isOwn && !isAllowedOrigin(config.CORS_ORIGINS, request.headers.origin))
      return refuse(socket, '403 Forbidden', 'this origin is not allowed');
    if (access === null || isOwn) this.#accept(request, socket, head, { url, admitted: null });
    else void this.#identify(request, socket, head, { url, access });
  }

  async #identify(
    request: IncomingMessage,
    socket: Duplex,
    head: Buffer,
    { url, access }: { url: URL; access: Access },
  ): Promise<void> {
    const { identities } = access;
    const address = this.#options.addresses.of(request);
    socket.on('error', destroyThis);
    try {
      const identity = await identities.ofRequest(request, address, url.searchParams.get('ticket'));
      leaveAtClose(await access.limits.ofAddress(address), socket);
      if (identity) leaveAtClose(await access.limits.ofUser(identity.user), socket);
      socket.off('error', destroyThis);
      this.#accept(request, socket, head, { url, admitted: { access, identity } });
    } catch (error) {
      if (error instanceof TokenRefused)
        refuse(socket, '401 Unauthorized', error.message, [`www-authenticate: ${challenge}`]);
      else if (error instanceof TooMany)
        refuse(socket, '429 Too Many Requests', error.message, [`retry-after: ${error.retryAfterS}`]);
      else if (error instanceof KeysUnavailable) refuse(socket, '503 Service Unavailable', error.message);
      else throw error;
    }
  }

  #accept(request: IncomingMessage, socket: Duplex, head: Buffer, upgrade: Upgrade): void {
    const { clients } = this.#options;
    if (clients.isLeaving) return refuse(socket, '503 Service Unavailable', 'this replica is leaving');
    if (clients.isFull) return refuse(socket, '503 Service Unavailable', 'this replica is full');
    this.#server.handleUpgrade(request, socket, head, (ws) =>
      this.#open(ws, socket as Socket, upgrade, this.#options.addresses.forwarded(request)),
    );
  }

  #open(ws: ClientSocket, socket: Socket, { url, admitted }: Upgrade, forwardedFor: string | null): void {
    const { metrics, clients } = this.#options;
    ws.on('error', this.#onError);
    ws.on('close', this.#onClose);
    metrics.opened.inc();
    socket.setNoDelay(true);
    const connection = new Connection(ws, socket, forwardedFor, admitted);
    connection.protocol = this.#protocol(connection, ws.protocol, url);
    if (!connection.protocol) return connection.credentials?.end();
    ws.connection = connection;
    clients.add(connection);
    ws.pingSlot = this.#wheel.add(connection);
    ws.tickSlot = this.#ticks.add(connection);
    ws.on('message', this.#onMessage);
    ws.on('pong', onPong);
    ws.on('ping', this.#onPing);
    // a closure here, because a property on the socket would give sockets one more shape (main.ts)
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
    // a client that does not read its pongs gets no more of them
    if (counted(connection) && connection.outlet.queuedBytes < this.#options.config.MAX_QUEUE_BYTES) ws.pong(payload);
  });

  readonly #onClose = ofSocket(({ connection, pingSlot, tickSlot }, code: number): void => {
    if (connection) {
      this.#wheel.remove(connection, pingSlot);
      this.#ticks.remove(connection, tickSlot);
      this.#inbox.forget(connection);
      connection.outlet.end();
      connection.credentials?.end();
      connection.protocol?.end();
      this.#options.clients.remove(connection);
    }
    this.#options.metrics.disconnects.inc({ code: String(code) });
  });

  /** The connection's protocol; null: the request is wrong, and the connection is being closed with the reason. */
  #protocol(connection: Connection, name: string, url: URL): Protocol | null {
    const wrong = wrongParameter(url, name !== subprotocol);
    if (wrong !== null) {
      connection.close(closeCodes.malformed, wrong);
      return null;
    }
    if (name === subprotocol) return new Session(connection, this.#sessionDeps);
    const request = plainRequest(url, this.#options, connection.viewer);
    if (!('error' in request)) return new Plain(connection, request, this.#options);
    connection.close(request.code, request.error);
    return null;
  }

  #handle(connection: Connection, message: Buffer): void {
    connection.alive = true;
    if (connection.outlet.open) connection.protocol?.receive(message.toString());
  }

  #ping(connection: Connection, now: number): void {
    const found = connection.check(now, this.#options.config.STALL_TIMEOUT_MS);
    if (found === 'dead') connection.cut();
    else if (found === 'stalled') connection.close(closeCodes.tooSlow, 'nothing was read for too long');
  }

  /** The caller must make sure that no client is left. */
  stop(): void {
    this.#wheel.stop();
    this.#ticks.stop();
    this.#inbox.stop();
    this.#server.close();
  }
}

/** An upgrade that may go on. */
interface Upgrade {
  url: URL;
  /** null: AUTH=off, or an operator's connection */
  admitted: Admitted | null;
}

/** Makes an event handler, which `ws` calls with the socket as `this`. */
function ofSocket<Args extends unknown[]>(
  handle: (ws: ClientSocket, ...args: Args) => void,
): (this: WebSocket, ...args: Args) => void {
  return function (...args) {
    handle(this as ClientSocket, ...args);
  };
}

const onPong = ofSocket((ws) => {
  const connection = ws.connection!;
  connection.alive = true;
  counted(connection);
});

/** Counts a frame. False: the frame must not be handled. */
function counted(connection: Connection): boolean {
  if (connection.countFrame()) return connection.outlet.open;
  refuseFlood(connection);
  return false;
}

function refuseFlood(connection: Connection): void {
  // a connection that is closing already is not read any more
  if (connection.outlet.open) connection.refuse(closeCodes.tooMany, 'too many messages');
  else connection.ws.pause();
}

function destroyThis(this: Duplex): void {
  this.destroy();
}

function isAllowedOrigin(allowed: readonly string[], origin: string | undefined): boolean {
  return allowed.includes('*') || (origin !== undefined && allowed.includes(origin));
}

/** Answers an upgrade request with an HTTP error. `status`: code and text, such as "404 Not Found". */
export function refuse(socket: Duplex, status: string, detail: string, headers: readonly string[] = []): void {
  const body = JSON.stringify({
    type: 'about:blank',
    title: status.slice(4),
    status: Number(status.slice(0, 3)),
    detail,
  });
  socket.on('error', destroyThis);
  // nothing else ends the socket: if the client kept its side open, the socket would stay for ever
  // and keep the server from closing
  socket.once('finish', () => socket.destroy());
  const head = [
    `HTTP/1.1 ${status}`,
    'connection: close',
    'content-type: application/problem+json',
    `content-length: ${Buffer.byteLength(body)}`,
    ...headers,
  ];
  socket.end(`${head.join('\r\n')}\r\n\r\n${body}`);
}
