// Owns a TCP proxy on 127.0.0.1 that stands between two processes and misbehaves on demand. What must stay true:
// - bytes pass in order and unchanged; held bytes are passed on later or, when their sender has gone, never;
// - a blackholed link stays silent with both ends open, also after `pass`: its client must notice by itself, and its server
//   sees no close, as with a broken network.

import { once } from 'node:events';
import { type AddressInfo, connect, createServer, type Server, type Socket } from 'node:net';

/** `client` connects to the proxy, the proxy connects to `server`. */
type Side = 'client' | 'server';

interface Link {
  client: Socket;
  server: Socket;
  /** bytes that came from a side and have not been passed on */
  held: Record<Side, Buffer[]>;
  silent: boolean;
}

export class TcpProxy {
  readonly #server: Server;
  readonly #target: { host: string; port: number };
  readonly #links = new Set<Link>();
  readonly #holding: Record<Side, boolean> = { client: false, server: false };
  #silent = false;
  #delayMs = 0;
  /** ms for each byte from the server; 0: no limit */
  #msPerByte = 0;
  #cutAt: string | undefined;
  /** connections accepted so far */
  accepted = 0;

  private constructor(server: Server, target: { host: string; port: number }) {
    this.#server = server;
    this.#target = target;
    server.on('connection', (client) => this.#accept(client));
  }

  /** `url` is the target: postgres://…, redis://… or http://… with a port. */
  static async start(url: string): Promise<TcpProxy> {
    const { hostname, port } = new URL(url);
    const server = createServer({ allowHalfOpen: true, noDelay: true });
    server.listen(0, '127.0.0.1');
    await once(server, 'listening');
    return new TcpProxy(server, { host: hostname, port: Number(port) });
  }

  get port(): number {
    return (this.#server.address() as AddressInfo).port;
  }

  /** The same URL, through this proxy. */
  through(url: string): string {
    const through = new URL(url);
    through.host = `127.0.0.1:${this.port}`;
    return through.href;
  }

  /** Back to normal. Held bytes are passed on; blackholed links stay silent. */
  pass(): void {
    this.#silent = false;
    this.#delayMs = 0;
    this.#msPerByte = 0;
    this.#cutAt = undefined;
    for (const side of ['client', 'server'] as const) {
      this.#holding[side] = false;
      for (const link of this.#links) {
        for (const bytes of link.held[side].splice(0)) this.#other(link, side).write(bytes);
      }
    }
  }

  /** Holds the bytes of clients, with the connections open. */
  holdRequests(): void {
    this.#holding.client = true;
  }

  /** Holds the bytes of the server. */
  holdReplies(): void {
    this.#holding.server = true;
  }

  /** bytes held now, in both directions */
  get heldBytes(): number {
    let bytes = 0;
    for (const { held } of this.#links) for (const chunk of [...held.client, ...held.server]) bytes += chunk.length;
    return bytes;
  }

  /** All links, also new ones, send nothing from now on and drop what they receive. */
  blackhole(): void {
    this.#silent = true;
    for (const link of this.#links) link.silent = true;
  }

  /** Passes every chunk, in both directions, on after `ms`. */
  delay(ms: number): void {
    this.#delayMs = ms;
  }

  /** Limits the bytes of the server. */
  throttle(bytesPerSecond: number): void {
    this.#msPerByte = 1_000 / bytesPerSecond;
  }

  /** Resets the open connections; new ones pass. */
  cut(): void {
    for (const link of this.#links) this.#drop(link);
  }

  /** Resets the open connections, and new ones when their client sends these words. */
  cutAt(words: string): void {
    this.#cutAt = words;
    this.cut();
  }

  async stop(): Promise<void> {
    for (const link of this.#links) this.#drop(link);
    await new Promise((resolve) => this.#server.close(resolve));
  }

  #other(link: Link, side: Side): Socket {
    return side === 'client' ? link.server : link.client;
  }

  #drop(link: Link): void {
    this.#links.delete(link);
    for (const socket of [link.client, link.server]) {
      socket.resetAndDestroy();
      // by itself that waits for bytes that a peer does not read
      socket.destroy();
    }
  }

  #accept(client: Socket): void {
    const server = connect({ ...this.#target, allowHalfOpen: true, noDelay: true });
    const link: Link = { client, server, held: { client: [], server: [] }, silent: this.#silent };
    this.#links.add(link);
    this.accepted++;
    for (const side of ['client', 'server'] as const) {
      const socket = link[side];
      socket.on('data', (bytes: Buffer) => this.#data(link, side, bytes));
      // 'close' follows
      socket.on('error', () => {});
      socket.on('end', () => this.#ended(link, side));
      socket.on('close', () => this.#closed(link, side));
    }
  }

  #data(link: Link, side: Side, bytes: Buffer): void {
    if (link.silent) return;
    if (this.#cutAt && side === 'client' && bytes.includes(this.#cutAt)) return this.#drop(link);
    if (this.#holding[side]) return void link.held[side].push(bytes);
    const to = this.#other(link, side);
    if (this.#delayMs > 0) return void setTimeout(() => this.#late(link, to, bytes), this.#delayMs);
    const takesMs = side === 'server' ? bytes.length * this.#msPerByte : 0;
    if (takesMs > 0) {
      to.write(bytes);
      link[side].pause();
      setTimeout(() => link[side].resume(), takesMs);
      return;
    }
    if (to.write(bytes)) return;
    link[side].pause();
    to.once('drain', () => link[side].resume());
  }

  #late(link: Link, to: Socket, bytes: Buffer): void {
    if (!link.silent && this.#links.has(link)) to.write(bytes);
  }

  /** One end has sent its FIN. The proxy passes it on after the bytes before it, unless the link is silent. */
  #ended(link: Link, side: Side): void {
    if (link.silent || !this.#links.has(link)) return;
    if (this.#holding.client || this.#holding.server) return this.#drop(link);
    const passOn = () => {
      if (!link.silent) this.#other(link, side).end();
    };
    if (this.#delayMs > 0) setTimeout(passOn, this.#delayMs);
    else passOn();
  }

  /** One end is closed. */
  #closed(link: Link, side: Side): void {
    if (link.silent) return;
    this.#ended(link, side);
    if (link.client.destroyed && link.server.destroyed) this.#links.delete(link);
    else this.#other(link, side).destroySoon();
  }
}
