/**
 * The WebSocket side: who may connect, what a connection asks for in its URL and says later, and that each one ends. Plain
 * mode: after the upgrade the server sends change frames, pings and a close, nothing else.
 */
import type { IncomingMessage } from 'node:http';
import type { Socket } from 'node:net';
import type { Duplex } from 'node:stream';
import { type RawData, type WebSocket, WebSocketServer } from 'ws';
import type { Catalog } from '#shared/catalog.ts';
import type { GatewayConfig } from '#shared/config.ts';
import type { Log } from '#shared/log.ts';
import type { GatewayMetrics } from '#shared/metrics.ts';
import { parsePlainMessage, parseTables } from '#shared/protocol.ts';
import { once, sleep } from '#shared/retry.ts';
import { closeCodes, parsePosition } from '#shared/wire.ts';
import type { TableSet } from './channel.ts';
import { Connection } from './connection.ts';
import type { Feed } from './feed.ts';
import type { Hub } from './hub.ts';
import { PingWheel } from './ping-wheel.ts';

const maxPayload = 64 * 1024;
/** from one client between two pings */
const maxMessages = 1_000;
/** sockets closed in one go while draining, and the pause behind them */
const drainBatch = 500;
const drainPauseMs = 50;

interface SocketsOptions {
  config: GatewayConfig;
  catalog: Catalog;
  hub: Hub;
  feed: Feed;
  log: Log;
  metrics: GatewayMetrics;
}

export class Sockets {
  readonly #options: SocketsOptions;
  readonly #server: WebSocketServer;
  readonly #connections = new Set<Connection>();
  readonly #wheel: PingWheel<Connection>;
  #draining = false;

  constructor(options: SocketsOptions) {
    this.#options = options;
    this.#server = new WebSocketServer({
      noServer: true,
      clientTracking: false,
      perMessageDeflate: false,
      maxPayload,
      maxFragments: 64,
      maxBufferedChunks: 4_096,
      autoPong: false,
    });
    this.#server.on('headers', (headers, request) => {
      // Plain mode has no frame that could tell a browser which replica it talks to. The one who asks chooses the cookie's
      // name, as windows that connect at the same time share their cookies.
      const asker = new URL(request.url ?? '/', 'ws://local').searchParams.get('whoami');
      if (asker !== null && /^\w{1,32}$/.test(asker)) {
        headers.push(
          `Set-Cookie: plank_node_${asker}=${options.config.NODE_NAME}; Path=/; Max-Age=20; SameSite=Strict`,
        );
      }
    });
    this.#wheel = new PingWheel(options.config.PING_INTERVAL_MS, (connection, now) => this.#ping(connection, now));
    options.metrics.connections.set({ transport: 'websocket' }, 0);
    options.metrics.connectionsLimit.set(options.config.MAX_CONNECTIONS);
  }

  start(): void {
    this.#wheel.start();
  }

  get count(): number {
    return this.#connections.size;
  }

  /** Answers an upgrade request: with a WebSocket on /ws, with an HTTP error elsewhere. */
  upgrade(request: IncomingMessage, socket: Duplex, head: Buffer): void {
    socket.on('error', () => socket.destroy());
    const { config } = this.#options;
    let url: URL;
    try {
      url = new URL(request.url ?? '/', 'ws://local');
    } catch {
      return refuse(socket, '400 Bad Request', 'the URL is malformed');
    }
    if (url.pathname !== '/ws') return refuse(socket, '404 Not Found', 'WebSocket is served at /ws');
    if (!isAllowedOrigin(config.CORS_ORIGINS, request.headers.origin))
      return refuse(socket, '403 Forbidden', 'this origin is not allowed');
    if (this.#draining) return refuse(socket, '503 Service Unavailable', 'this replica is stopping');
    if (this.#connections.size >= config.MAX_CONNECTIONS)
      return refuse(socket, '503 Service Unavailable', 'this replica is full');
    this.#server.handleUpgrade(request, socket, head, (ws) => this.#open(ws, socket as Socket, url));
  }

  #open(ws: WebSocket, socket: Socket, url: URL): void {
    const { hub, metrics, log } = this.#options;
    ws.on('error', (error) => log.debug({ err: error }, 'a client broke the protocol'));
    const asked = this.#asked(url);
    metrics.opened.inc();
    if ('error' in asked) {
      metrics.disconnects.inc({ code: String(asked.code) });
      ws.close(asked.code, reason(asked.error));
      const cut = setTimeout(() => ws.terminate(), 2_000);
      ws.once('close', () => clearTimeout(cut));
      return;
    }
    socket.setNoDelay(true);
    const connection = new Connection(ws, socket, hub.join(asked.tables));
    this.#connections.add(connection);
    metrics.connections.set({ transport: 'websocket' }, this.#connections.size);
    const offWheel = this.#wheel.add(connection);
    ws.on('message', (message, isBinary) => this.#message(connection, message, isBinary));
    ws.on('pong', () => {
      connection.alive = true;
    });
    ws.on('ping', (payload) => {
      connection.alive = true;
      if (!connection.allowMessage(maxMessages)) return connection.close(closeCodes.tooMany, 'too many messages');
      // who does not read its pongs gets none
      if (connection.queuedBytes < this.#options.config.MAX_QUEUE_BYTES) ws.pong(payload);
    });
    ws.once('close', (code) => {
      offWheel();
      connection.state = 'closed';
      hub.leave(connection);
      this.#connections.delete(connection);
      metrics.connections.set({ transport: 'websocket' }, this.#connections.size);
      metrics.disconnects.inc({ code: String(code) });
    });
    if (asked.since === null) hub.goLive(connection);
    else void hub.catchUp(connection, asked.since, closeCodes.positionGone);
  }

  /** What the URL asks for: which tables, and from which seq on (null: from now on). */
  #asked(url: URL): { tables: TableSet; since: number | null } | { error: string; code: number } {
    const { catalog, feed, metrics } = this.#options;
    const tables = parseTables(url.searchParams.get('tables'));
    const unknown = tables?.find((name) => !catalog.byName(name));
    if (unknown !== undefined)
      return { error: `tables: there is no table ${JSON.stringify(unknown)}`, code: closeCodes.malformed };
    const text = url.searchParams.get('since');
    if (text === null) return { tables, since: null };
    const since = parsePosition(text);
    if (!since) return { error: 'since: not a position', code: closeCodes.malformed };
    const known = feed.isOfThisHistory(since);
    metrics.resumes.inc({ result: known ? 'ok' : 'gone' });
    if (!known) return { error: 'since: this history is no more, read the rows anew', code: closeCodes.positionGone };
    return { tables, since: since.seq };
  }

  #message(connection: Connection, message: RawData, isBinary: boolean): void {
    const { catalog, hub } = this.#options;
    connection.alive = true;
    if (connection.state === 'closed') return;
    if (!connection.allowMessage(maxMessages)) return connection.close(closeCodes.tooMany, 'too many messages');
    if (isBinary) return connection.close(closeCodes.malformed, 'messages are JSON text');
    const parsed = parsePlainMessage((message as Buffer).toString());
    if ('error' in parsed) return connection.close(closeCodes.malformed, reason(parsed.error));
    if (!catalog.byName(parsed.table))
      return connection.close(closeCodes.malformed, reason(`there is no table ${JSON.stringify(parsed.table)}`));
    const now = connection.channel.tables;
    if (parsed.action === 'subscribe') {
      // whoever names tables wants those; the connection began with all of them
      if (now?.includes(parsed.table)) return;
      hub.move(connection, [...(now ?? []), parsed.table]);
    } else {
      const all = now ?? catalog.tables.map((table) => table.name);
      hub.move(
        connection,
        all.filter((name) => name !== parsed.table),
      );
    }
  }

  #ping(connection: Connection, now: number): void {
    const found = connection.check(now, this.#options.config.STALL_TIMEOUT_MS);
    if (found === 'dead') connection.terminate();
    else if (found === 'stalled') connection.close(closeCodes.tooSlow, 'nothing was read for too long');
  }

  /** Closes every connection with a code that says why, paced. */
  async closeAll(code: number, why: string): Promise<void> {
    let closed = 0;
    for (const connection of Array.from(this.#connections)) {
      connection.close(code, why);
      if (++closed % drainBatch === 0) await sleep(drainPauseMs);
    }
  }

  /** Accepts no more and asks the ones there to come back elsewhere; resolves when all are gone. */
  readonly stop = once(async () => {
    this.#draining = true;
    await this.closeAll(closeCodes.restart, 'this replica is stopping, come back');
    const gone = performance.now() + 3_000;
    while (this.#connections.size > 0 && performance.now() < gone) await sleep(20);
    for (const connection of this.#connections) connection.terminate();
    this.#wheel.stop();
    this.#server.close();
  });
}

function isAllowedOrigin(allowed: readonly string[], origin: string | undefined): boolean {
  return allowed.includes('*') || (origin !== undefined && allowed.includes(origin));
}

/** A close reason is at most 123 bytes. */
function reason(text: string): string {
  const bytes = Buffer.from(text);
  return bytes.length <= 123 ? text : new TextDecoder().decode(bytes.subarray(0, 120)).replace(/\uFFFD+$/, '') + '…';
}

function refuse(socket: Duplex, status: string, detail: string): void {
  const body = JSON.stringify({
    type: 'about:blank',
    title: status.slice(4),
    status: Number(status.slice(0, 3)),
    detail,
  });
  socket.end(
    `HTTP/1.1 ${status}\r\nconnection: close\r\ncontent-type: application/problem+json\r\ncontent-length: ${Buffer.byteLength(body)}\r\n\r\n${body}`,
  );
}
